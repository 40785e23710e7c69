"""Embedding tables, normalisations, and parameters without a module."""

from __future__ import annotations

import torch
from torch import nn

from twophase_fast._model_cases._build import Apply, case, convolution, inputs, parameter


@case
def embedding_padding():
    def run(s, t):
        return s.b(s.e(t).mean(1))

    return Apply(run, e=nn.Embedding(9, 5, padding_idx=2), b=nn.Linear(5, 3)), torch.randint(0, 9, (4, 6))


@case
def embedding_bag():
    return Apply(lambda s, t: s.b(s.e(t)), e=nn.EmbeddingBag(9, 5), b=nn.Linear(5, 3)), torch.randint(0, 9, (4, 6))


@case
def embedding_sequence_first():
    """Tokens are transposed before they are looked up."""
    return Apply(lambda s, t: s.b(s.e(t.T).mean(0)), e=nn.Embedding(9, 5), b=nn.Linear(5, 3)), torch.randint(
        0, 9, (4, 6)
    )


@case
def batch_norm_1d():
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)), inputs(4, 5)


@case
def batch_norm_first():
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2)), inputs(4, 3, 6, 6)


@case
def layer_norm():
    return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)), inputs(4, 5)


@case
def layer_norm_two_axes():
    return Apply(lambda s, x: s.n(x).tanh().sum(2), n=nn.LayerNorm((3, 5))), inputs(4, 3, 5)


@case
def group_norm():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)), inputs(
        4, 3, 6, 6
    )


@case
def instance_norm():
    model, x = convolution(nn.Conv2d(3, 4, 3), 4, 3, 6, 6)
    return Apply(lambda s, x: s.n(s.c.c(x)).tanh().mean((2, 3)), c=model, n=nn.InstanceNorm2d(4, affine=True)), x


@case
def rms_norm():
    return nn.Sequential(nn.Linear(5, 6), nn.RMSNorm(6), nn.Linear(6, 3)), inputs(4, 5)


@case
def prelu():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Flatten(), nn.Linear(64, 2), nn.PReLU()), inputs(
        4, 3, 6, 6
    )


@case
def raw_parameters():
    """Parameters without a module: scales, shifts, a product, a quotient, a scalar."""

    def run(s, x):
        return (x * s.scale + s.shift) @ s.w / s.temperature - s.offset

    return Apply(
        run,
        scale=parameter(5),
        shift=parameter(1, 5),
        w=parameter(5, 3),
        temperature=parameter(1),
        offset=parameter(()),
    ), inputs(4, 5)


@case
def positional_and_class_token():
    """A token put before the sequence, and a slice of a table added to it."""

    def run(s, x):
        tokens = torch.cat([s.token.expand(x.shape[0], -1, -1), x], 1) + s.position[:, : x.shape[1] + 1]
        return s.b(tokens.tanh().mean(1))

    return Apply(run, token=parameter(1, 1, 5), position=parameter(1, 9, 5), b=nn.Linear(5, 3)), inputs(4, 6, 5)


@case
def repeated_state():
    """One row repeated for every sample."""
    return Apply(
        lambda s, x: s.b((s.h.repeat(x.shape[0], 1) * x).tanh()), h=parameter(1, 5), b=nn.Linear(5, 3)
    ), inputs(4, 5)


@case
def where_and_gather():
    """The input's sign picks one of two parameters, element by element."""

    def run(s, x):
        chosen = torch.where(x > 0, s.p, s.q)
        return s.b(chosen * x)

    return Apply(run, p=parameter(5), q=parameter(5), b=nn.Linear(5, 3)), inputs(4, 5)
