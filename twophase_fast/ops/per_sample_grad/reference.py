"""Definition of the per-sample gradients of linear maps and convolutions in plain torch; in float64 it is the truth.

linear:      out[n,c,i,j] = Σ_t g[n,c,t,i] a[n,t,j]
convolution: out[n,c,o,i,k] = Σ_q g[n,c,o,q] x[n, i + first channel of o's group, q·stride + k·dilation − padding]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from twophase_fast.ops import _operands
from twophase_fast.ops._ieee import ieee_float32


def linear_shape(a: torch.Tensor, g: torch.Tensor) -> tuple[int, ...]:
    """Return the shape of the gradients of linear maps, [N, C, p, d]."""
    return (*g.shape[:2], g.shape[3], a.shape[2])


def new_linear(a: torch.Tensor, g: torch.Tensor, *_: object) -> torch.Tensor:
    """Return room for the gradients of linear maps, given the arguments of `per_sample_grad`."""
    return a.new_empty(linear_shape(a, g))


def per_sample_grad_out(out: torch.Tensor, a: torch.Tensor, g: torch.Tensor, precision: str) -> None:
    """Write out[n,c] = g[n,c]ᵀ a[n], sample by sample."""
    with ieee_float32():
        for n in range(a.shape[0]):
            out[n] = g[n].mT @ a[n]


per_sample_grad = _operands.into_new(new_linear, per_sample_grad_out)
"""The gradients [N, C, p, d] of a [N, T, d], g [N, C, T, p], as a new tensor."""


def conv_shape(x: torch.Tensor, g: torch.Tensor, kernel_size: Sequence[int], groups: int) -> tuple[int, ...]:
    """Return the shape of the gradients of a convolution, [N, C, Cout, Cin/groups, *kernel]."""
    return (*g.shape[:3], x.shape[1] // groups, *kernel_size)


def new_conv(
    x: torch.Tensor,
    g: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    *_: object,
) -> torch.Tensor:
    """Return room for the gradients of a convolution, given the arguments of `per_sample_conv_grad`."""
    return x.new_empty(conv_shape(x, g, kernel_size, groups))


def per_sample_conv_grad_out(
    out: torch.Tensor,
    x: torch.Tensor,
    g: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    precision: str,
) -> None:
    """Write the gradients, sample by sample, as products of cotangents [C, Cout, Q] and patches [Cin, *kernel, Q]."""
    samples, classes, cout, cin = out.shape[:4]
    taps = torch.Size(kernel_size).numel()
    with ieee_float32():
        for n in range(samples):
            patches = patches_of(x[n], kernel_size, stride, padding, dilation)
            columns = patches.reshape(groups, cin * taps, g.shape[3:].numel())
            rows = g[n].reshape(classes, groups, cout // groups, g.shape[3:].numel())
            out[n] = (rows @ columns.mT).reshape(out.shape[1:])


per_sample_conv_grad = _operands.into_new(new_conv, per_sample_conv_grad_out)
"""The gradient of every sample and class with respect to the weight of a convolution, as a new tensor."""


def patches_of(
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """Return the view x[i, q·stride + k·dilation − padding] as [Cin, *kernel, *out_spatial] of x [Cin, *spatial]."""
    x = pad(x, [side for width in reversed(padding) for side in (width, width)])
    dims = len(kernel)
    for axis in range(dims):
        x = x.unfold(1 + axis, dilation[axis] * (kernel[axis] - 1) + 1, stride[axis])
    taps = tuple(slice(None, None, step) for step in dilation)
    x = x[(slice(None),) * (1 + dims) + taps]
    return x.permute(0, *range(1 + dims, 1 + 2 * dims), *range(1, 1 + dims))
