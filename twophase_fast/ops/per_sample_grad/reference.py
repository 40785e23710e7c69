"""Definition of the per-sample gradients of linear maps and convolutions in plain torch; in float64 it is the truth.

linear:      out[n,c,i,j] = Σ_t g[n,c,t,i] a[n,t,j]
convolution: out[n,c,o,i,k] = Σ_q g[n,c,o,q] x[n, i + first channel of o's group, q·stride + k·dilation − padding]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad


def per_sample_grad(out: torch.Tensor, a: torch.Tensor, g: torch.Tensor) -> None:
    """Write out[n,c] = g[n,c]ᵀ a[n] for a [N, T, d], g [N, C, T, p], sample by sample."""
    for n in range(a.shape[0]):
        out[n] = g[n].mT @ a[n]


def per_sample_conv_grad(
    out: torch.Tensor,
    x: torch.Tensor,
    g: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> None:
    """Write the gradient of every sample and class with respect to the weight of a convolution."""
    samples, classes, cout, cin, *kernel = out.shape
    for n in range(samples):
        patches = patches_of(x[n], kernel, stride, padding, dilation)  # [Cin, *kernel, *out_spatial]
        columns = patches.reshape(groups, cin * torch.Size(kernel).numel(), -1)
        rows = g[n].reshape(classes, groups, cout // groups, -1)
        out[n] = (rows @ columns.mT).reshape(out.shape[1:])


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
