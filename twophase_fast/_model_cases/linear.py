"""Linear maps in all the ways a parameter can enter one, and parameters used several times."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from twophase_fast._model_cases._build import Apply, case, inputs, parameter

# ---- linear maps ---------------------------------------------------------------------------------------------------


@case
def linear_3d():
    """Layers applied at every position, then averaged."""
    head = nn.Linear(6, 3)
    return Apply(lambda s, x: s.b(torch.tanh(s.a(x))).mean(1), a=nn.Linear(5, 6), b=head), inputs(4, 7, 5)


@case
def linear_4d_no_bias():
    return Apply(lambda s, x: s.a(x).tanh().sum((1, 2)), a=nn.Linear(5, 3, bias=False)), inputs(4, 2, 3, 5)


@case
def linear_last_position_only():
    """Layers applied at every position, of which only the last one matters."""
    return Apply(lambda s, x: s.b(s.a(x).relu())[:, -1], a=nn.Linear(5, 6), b=nn.Linear(6, 3)), inputs(4, 4, 5)


@case
def sequence_first():
    """The axis of samples is the second one inside."""
    return Apply(lambda s, x: s.b(s.a(x.transpose(0, 1)).tanh()).mean(0), a=nn.Linear(5, 6), b=nn.Linear(6, 3)), inputs(
        4, 7, 5
    )


@case
def bilinear():
    return Apply(lambda s, x: s.b(x, x.flip(1)), b=nn.Bilinear(5, 5, 3)), inputs(4, 5)


@case
def einsum_right():
    """The parameter is the right operand of an einsum."""
    return Apply(lambda s, x: torch.einsum("ntd,dp->ntp", x, s.w).tanh().sum(1), w=parameter(5, 3)), inputs(4, 6, 5)


@case
def matmul_left():
    """The parameter is the left operand of a batched product."""
    return Apply(lambda s, x: (s.w @ x).tanh().sum(2), w=parameter(3, 5)), inputs(4, 5, 6)


@case
def matmul_left_columns():
    """The parameter is the left operand, and samples are columns."""
    return Apply(lambda s, x: (s.w @ x.T).tanh().T, w=parameter(3, 5)), inputs(4, 5)


@case
def matmul_vector():
    """The parameter is a vector, used twice."""
    return Apply(lambda s, x: torch.stack([x @ s.v, (x @ s.v) ** 2], 1), v=parameter(5)), inputs(4, 5)


@case
def batched_matmul():
    """A weight for each position."""
    return Apply(lambda s, x: torch.bmm(x.transpose(0, 1), s.w).tanh().sum(0), w=parameter(6, 5, 3)), inputs(4, 6, 5)


@case
def weight_transposed():
    return Apply(lambda s, x: F.linear(torch.tanh(F.linear(x, s.w)), s.w.t()), w=parameter(6, 5)), inputs(4, 5)


@case
def weight_sliced():
    """Three layers share one parameter, a third each."""

    def run(s, x):
        q, k, v = s.w.chunk(3)
        return F.linear(x, q) * F.linear(x, k).sigmoid() + F.linear(x, v)

    return Apply(run, w=parameter(9, 5)), inputs(4, 5)


@case
def weight_reshaped():
    return Apply(lambda s, x: F.linear(x, s.w.reshape(3, 5)), w=parameter(15)), inputs(4, 5)


@case
def weight_indexed():
    """Rows of the parameter are picked, one of them twice."""
    return Apply(lambda s, x: F.linear(x, s.w[[0, 2, 2]]), w=parameter(4, 5)), inputs(4, 5)


@case
def weight_norm():
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 6)), nn.Tanh(), nn.Linear(6, 3)), inputs(4, 5)


@case
def spectral_norm():
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 6)), nn.Tanh(), nn.Linear(6, 3)), inputs(4, 5)


@case
def product_of_weights():
    """The weight is a product of two parameters."""
    return Apply(lambda s, x: F.linear(x, s.u @ s.v), u=parameter(3, 2), v=parameter(2, 5)), inputs(4, 5)


# ---- reuse and ties ------------------------------------------------------------------------------------------------


@case
def layer_used_twice():
    return Apply(lambda s, x: s.b(s.a(s.a(x).tanh()).tanh()), a=nn.Linear(5, 5), b=nn.Linear(5, 3)), inputs(4, 5)


@case
def conv_used_twice():
    def run(s, x):
        return s.b(s.a(s.a(x).relu()).relu().mean((2, 3)))

    return Apply(run, a=nn.Conv2d(3, 3, 3, padding=1), b=nn.Linear(3, 2)), inputs(4, 3, 6, 6)


@case
def norm_used_twice():
    def run(s, x):
        return s.b(s.n(s.a(s.n(x)).tanh()))

    return Apply(run, a=nn.Linear(5, 5), n=nn.LayerNorm(5), b=nn.Linear(5, 2)), inputs(4, 5)


@case
def autoencoder_tied():
    """The decoder's weight is the encoder's, transposed."""
    return Apply(
        lambda s, x: F.linear(F.linear(x, s.w).tanh(), s.w.t(), s.b), w=parameter(3, 5), b=parameter(5)
    ), inputs(4, 5)


@case
def linear_tied_to_conv():
    """One parameter is a kernel of a convolution and the weight of a linear layer."""

    def run(s, x):
        h = F.conv2d(x, s.w.view(4, 3, 2, 2)).tanh().mean((2, 3))
        return F.linear(x.flatten(1)[:, :12], s.w) * h

    return Apply(run, w=parameter(4, 12)), inputs(4, 3, 5, 5)


@case
def shared_module_two_names():
    a = nn.Linear(5, 5)
    return Apply(lambda s, x: s.second(s.first(x).tanh()), first=a, second=a), inputs(4, 5)
