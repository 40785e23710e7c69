"""Whole networks: the zoo's, and last layers that are wide or tied to the first."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from twophase_fast import zoo
from twophase_fast._model_cases._build import Apply, case, inputs, parameter


@case
def mlp():
    return zoo.mlp(12, (16, 9), 5), inputs(5, 12)


@case
def tutorial_cnn():
    return zoo.tutorial_cnn(outputs=3), inputs(3, 3, 32, 32)


@case
def small_cnn():
    return zoo.small_cnn(outputs=4), inputs(4, 1, 28, 28)


@case
def grouped_cnn():
    return zoo.grouped_cnn(outputs=3), inputs(4, 3, 16, 16)


@case
def resnet20():
    return zoo.resnet20(width=4, outputs=3), inputs(4, 3, 16, 16)


@case
def vgg16_narrow():
    return zoo.vgg16(width=0.0625, outputs=3), inputs(4, 3, 32, 32)


@case
def vit():
    return zoo.vit(image_size=8, patch=4, d=12, depth=2, heads=3, outputs=4), inputs(4, 3, 8, 8)


@case
def gpt_tied():
    return zoo.gpt(vocabulary=11, context=6, d=8, depth=2, heads=2), torch.randint(0, 11, (4, 6))


@case
def gpt_untied():
    return zoo.gpt(vocabulary=11, context=6, d=8, depth=2, heads=2, tied=False), torch.randint(0, 11, (4, 6))


@case
def wide_readout_with_bias():
    """A last layer with more outputs than inputs."""
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 9)), inputs(4, 5)


@case
def wide_readout_last_position():
    """A wide last layer at every position, of which only the last position is read."""
    return Apply(lambda s, x: s.b(s.a(x).tanh())[:, -1], a=nn.Linear(5, 4), b=nn.Linear(4, 9)), inputs(4, 3, 5)


@case
def wide_readout_averaged():
    """A wide last layer at every position, averaged."""
    return Apply(lambda s, x: s.b(s.a(x).tanh()).mean(1), a=nn.Linear(5, 4), b=nn.Linear(4, 9)), inputs(4, 3, 5)


@case
def wide_readout_beside_a_shortcut():
    """A wide last layer, and a linear layer that goes around it."""

    def run(s, x):
        return s.c(s.a(x).tanh()) + s.b(x)

    return Apply(run, a=nn.Linear(5, 4), b=nn.Linear(5, 9), c=nn.Linear(4, 9)), inputs(4, 5)


@case
def wide_readout_beside_a_table():
    """A wide last layer, and a table of biases."""

    def run(s, t):
        return s.b(s.e(t).tanh()) + s.c(t)

    parts = {"e": nn.Embedding(7, 4), "b": nn.Linear(4, 9, bias=False), "c": nn.Embedding(7, 9)}
    return Apply(run, **parts), torch.randint(0, 7, (5,))


@case
def tied_readout_with_padding():
    """The last layer's weight is the embedding table, a row of which is padding."""

    def run(s, t):
        return F.linear(s.a(s.e(t)).tanh().sum(1), s.e.weight, s.b)

    return Apply(run, e=nn.Embedding(9, 4, padding_idx=3), a=nn.Linear(4, 4), b=parameter(9)), torch.randint(
        0, 9, (5, 6)
    )


@case
def tied_readout_used_elsewhere():
    """The table is the weight of a hidden layer, too."""

    def run(s, t):
        h = s.e(t).sum(1)
        return F.linear(F.linear(h, s.e.weight)[:, :4].tanh(), s.e.weight)

    return Apply(run, e=nn.Embedding(9, 4)), torch.randint(0, 9, (5, 6))
