"""Residual network for CIFAR (He et al., 2015, section 4.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from twophase_fast.zoo._seeding import seeded
from twophase_fast.zoo.cnn import GlobalMean


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and a parameter-free shortcut.

    The shortcut subsamples by `stride` and pads the new channels with zeros (option A of the paper).
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.stride, self.new_channels = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride != 1 or self.new_channels:
            before = self.new_channels // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new_channels - before))
        return self.relu(y + x)


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)


@seeded
def resnet20(in_channels: int = 3, outputs: int = 10, width: int = 16, *, seed: int = 0) -> nn.Module:
    """ResNet-20 for CIFAR: three stages of three blocks with `width`, 2 and 4 times `width` channels.

    BatchNorm, in-place ReLU, global mean, linear readout; 269,722 parameters with the defaults. Maps
    [N, in_channels, H, W] to [N, outputs]. Put it in eval mode for kernels.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    channels = width
    for stage in range(3):
        for block in range(3):
            layers.append(BasicBlock(channels, width << stage, 2 if stage and not block else 1))
            channels = width << stage
    model = nn.Sequential(*layers, GlobalMean(), nn.Linear(channels, outputs))
    _initialise(model)
    return model
