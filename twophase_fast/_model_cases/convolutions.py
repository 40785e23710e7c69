"""Convolutions of every geometry, alone and in a row."""

from __future__ import annotations

import torch
from torch import nn

from twophase_fast._model_cases._build import Apply, case, convolution, inputs

# ---- convolutions --------------------------------------------------------------------------------------------------


@case
def conv1d():
    return convolution(nn.Conv1d(3, 4, 3, stride=2, padding=1), 4, 3, 9)


@case
def conv1d_dilated_same():
    return convolution(nn.Conv1d(3, 4, 3, padding="same", dilation=2), 4, 3, 9)


@case
def conv2d_strided():
    return convolution(nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0)), 4, 3, 7, 8)


@case
def conv2d_circular():
    return convolution(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), 4, 3, 6, 6)


@case
def conv2d_reflect():
    return convolution(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), 4, 3, 6, 6)


@case
def conv2d_replicate():
    return convolution(nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), 4, 3, 6, 6)


@case
def conv2d_groups():
    return convolution(nn.Conv2d(4, 6, 3, groups=2, bias=False), 4, 4, 6, 6)


@case
def conv2d_depthwise():
    return convolution(nn.Conv2d(4, 8, 3, groups=4, padding=1), 4, 4, 6, 6)


@case
def conv2d_one_by_one():
    return convolution(nn.Conv2d(4, 3, 1), 4, 4, 5, 5)


@case
def conv3d():
    return convolution(nn.Conv3d(2, 3, 2, stride=(1, 2, 1), padding=(1, 0, 0)), 4, 2, 4, 4, 5)


@case
def conv_transpose2d():
    return convolution(nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), 4, 3, 5, 5)


@case
def conv_transpose1d_groups():
    return convolution(nn.ConvTranspose1d(4, 6, 3, groups=2), 4, 4, 6)


@case
def conv_over_windows():
    """Windows of an image become samples of a convolution, then join again."""

    def run(s, x):
        windows = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 4, 4)
        return s.c(windows).tanh().mean((2, 3)).view(x.shape[0], 4, -1).mean(1)

    return Apply(run, c=nn.Conv2d(3, 2, 3)), inputs(4, 3, 8, 8)


@case
def channels_last():
    model, x = convolution(nn.Conv2d(3, 4, 3, padding=1), 4, 3, 6, 6)
    return model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)


# ---- images through several layers: cotangents go through convolutions ---------------------------------------------


@case
def conv_squeeze_excitation():
    """Channels are scaled by a gate that is computed from their own means."""
    parts = {"c": nn.Conv2d(3, 6, 3, padding=1), "d": nn.Conv2d(6, 6, 3, padding=1), "n": nn.BatchNorm2d(6)}
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 3, 1), nn.SiLU(), nn.Conv2d(3, 6, 1), nn.Sigmoid())

    def run(s, x):
        h = s.n(s.d(s.c(x))).relu()
        return (h * s.gate(h)).mean((2, 3))

    return Apply(run, gate=gate, **parts), inputs(4, 3, 7, 6)


@case
def conv_preactivation():
    """Normalisation before convolution, sums of branches, a norm and a convolution used twice."""
    parts = {"c": nn.Conv2d(3, 5, 3), "n": nn.BatchNorm2d(5), "d": nn.Conv2d(5, 5, 3, padding=1, bias=False)}

    def run(s, x):
        h = s.c(x)
        h = h + s.d(s.n(h).relu())
        h = s.n(h) + s.d(h) + h
        return (h + h).amax((2, 3))

    return Apply(run, **parts), inputs(4, 3, 6, 6)


@case
def conv_activations_and_pools():
    """Many activations, pools and convolutions of all geometries in a row."""
    layers = (
        *(nn.Conv2d(3, 4, 3, padding=2), nn.GELU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
        *(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Hardswish(), nn.BatchNorm2d(6), nn.SiLU()),
        *(nn.Conv2d(6, 4, 2, dilation=2, padding=1), nn.ELU(), nn.AvgPool2d(2, 1, 1, count_include_pad=False)),
        *(nn.Conv2d(4, 5, (1, 3)), nn.Softplus(), nn.BatchNorm2d(5, affine=False), nn.LeakyReLU(), nn.Flatten()),
    )
    return nn.Sequential(*layers, nn.Linear(75, 3)), inputs(4, 3, 11, 13)


@case
def conv_one_dimensional_stack():
    layers = (nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 4, 3, padding="same", dilation=2))
    head = (nn.Tanh(), nn.Conv1d(4, 3, 4, stride=3), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    return nn.Sequential(*layers, *head), inputs(4, 2, 17)


@case
def conv_stack_over_windows():
    """Each sample is three images, which join again behind the convolutions."""
    parts = {"c": nn.Conv2d(2, 4, 3, padding=1), "n": nn.BatchNorm2d(4), "d": nn.Conv2d(4, 3, 3, padding=1)}

    def run(s, x):
        windows = x.flatten(0, 1)  # [N * 3, 2, 6, 5]
        return s.d(s.n(s.c(windows)).relu()).mean((2, 3)).unflatten(0, (len(x), 3)).sum(1)

    return Apply(run, **parts), inputs(4, 3, 2, 6, 5)


@case
def conv_shared_and_transposed():
    """A convolution used three times, a transposed one and a norm twice."""
    parts = {"c": nn.Conv2d(3, 3, 3, padding=1), "t": nn.ConvTranspose2d(3, 3, 2, stride=2), "n": nn.BatchNorm2d(3)}

    def run(s, x):
        h = s.n(s.c(s.c(x).relu())).relu()
        return (s.c(s.t(h)).relu() - s.n(s.t(h))).mean((2, 3))

    return Apply(run, **parts), inputs(4, 3, 5, 4)
