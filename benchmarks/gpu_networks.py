"""ResNet-18 (He et al., 2015), which the published GPU figures are about; the zoo has the smaller networks."""

from __future__ import annotations

import torch
from torch import nn

STAGES = (64, 128, 256, 512)


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and a 1x1 convolution on the shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        h = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(h + self.shortcut(x))


def resnet18(outputs: int, *, width: float = 1.0) -> nn.Module:
    """Return ResNet-18 with 11.2 M parameters at width 1, seeded, mapping [N, 3, H, W] to [N, outputs]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        widths = [max(1, int(width * channels)) for channels in STAGES]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 7, 2, 3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        layers.append(nn.MaxPool2d(3, 2, 1))
        before = widths[0]
        for stage, channels in enumerate(widths):
            layers += [Block(before, channels, 2 if stage else 1), Block(channels, channels, 1)]
            before = channels
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, outputs))
