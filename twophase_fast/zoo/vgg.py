"""VGG-16 with BatchNorm for 32x32 images (Simonyan and Zisserman, 2014, configuration D)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from twophase_fast.zoo._seeding import seeded

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def _features(in_channels: int, width: float) -> tuple[list[nn.Module], int]:
    layers: list[nn.Module] = []
    channels = in_channels
    for stage in _STAGES:
        for full in stage:
            out = max(1, round(full * width))
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            channels = out
        layers.append(nn.MaxPool2d(2))
    return layers, channels


@seeded
def vgg16(
    in_channels: int = 3,
    outputs: int = 10,
    width: float = 1.0,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    *,
    seed: int = 0,
) -> nn.Module:
    """VGG-16 with BatchNorm and in-place ReLU.

    Args:
        in_channels: Channels of the images.
        outputs: Outputs per sample, C.
        width: Multiplies the channels of every convolution; 0.125 is the narrow network of the tests.
        hidden: Units of the hidden fully connected layers. Empty (the default) is the usual CIFAR variant
            with one linear readout, 14.7 M parameters; (4096, 4096) is the paper's, 33.6 M.
        dropout: Probability after each hidden fully connected layer.
        seed: Of the initial weights.

    Returns:
        A module mapping [N, in_channels, 32, 32] to [N, outputs].
    """
    layers, channels = _features(in_channels, width)
    layers.append(nn.Flatten(1))
    for units in hidden:
        layers += [nn.Linear(channels, units), nn.ReLU(inplace=True)]
        layers += [nn.Dropout(dropout)] if dropout else []
        channels = units
    model = nn.Sequential(*layers, nn.Linear(channels, outputs))
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return model
