"""Small convolutional networks without normalisation."""

from __future__ import annotations

from torch import nn

from twophase_fast.zoo._seeding import seeded


class GlobalMean(nn.Module):
    """Mean over all spatial positions: [N, C, *spatial] -> [N, C]."""

    def forward(self, x):
        """Return the mean of x over every axis after the second."""
        return x.flatten(2).mean(2)


@seeded
def small_cnn(in_channels: int = 1, outputs: int = 10, *, seed: int = 0) -> nn.Module:
    """The demo's network: 3x3 convolutions of 8, 16 and 32 channels, two max-pools, a global mean, a readout.

    6,218 parameters with the defaults. Maps [N, in_channels, H, W] to [N, outputs]; H, W >= 4. Pooling comes
    before ReLU: the same function, with a quarter of the entries to rectify.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        GlobalMean(),
        nn.Linear(32, outputs),
    )


@seeded
def tutorial_cnn(in_channels: int = 3, outputs: int = 10, image_size: int = 32, *, seed: int = 0) -> nn.Module:
    """The network of PyTorch's NTK tutorial: three unpadded 3x3 convolutions of 32 channels, one readout.

    235,722 parameters with the defaults. Maps [N, in_channels, image_size, image_size] to [N, outputs].
    """
    side = image_size - 6
    return nn.Sequential(
        nn.Conv2d(in_channels, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.Flatten(1),
        nn.Linear(32 * side * side, outputs),
    )


@seeded
def grouped_cnn(in_channels: int = 3, outputs: int = 10, *, seed: int = 0) -> nn.Module:
    """Every odd convolution in one network: grouped, dilated, strided, depthwise, unpadded, reflect-padded.

    Maps [N, in_channels, H, W] to [N, outputs]; H, W >= 8 and need not be even.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 12, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=3),
        nn.Tanh(),
        nn.Conv2d(12, 12, (3, 1), padding=(1, 0), groups=12, bias=False),
        nn.Conv2d(12, 16, 1),
        nn.SiLU(),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect", groups=2),
        nn.ReLU(),
        nn.Conv2d(16, 8, (2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1), groups=4),
        GlobalMean(),
        nn.Linear(8, outputs),
    )
