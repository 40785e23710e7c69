"""The pull-back through a convolution by torch's transposed convolution: cuDNN's on a GPU.

The result is cuDNN's own memory where a new tensor is wanted; cuDNN cannot write to `out` or add to it through torch.
Every precision is IEEE float32: a pull-back goes through many layers, and what TF32 cuts off would add up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twophase_fast.ops._ieee import ieee_convolutions
from twophase_fast.ops.conv_input_grad.reference import transposed


def conv_input_grad(
    g: torch.Tensor,
    weight: torch.Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    precision: str,
) -> torch.Tensor:
    """Return the gradients [B, Cin, *size] of g [B, Cout, *out_spatial]."""
    if not len(g):
        return g.new_empty(0, weight.shape[1] * groups, *size)
    with ieee_convolutions():
        return transposed(g, weight, size, stride, padding, dilation, groups).contiguous()


def conv_input_grad_(
    out: torch.Tensor,
    g: torch.Tensor,
    weight: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    add: bool,
    precision: str,
) -> None:
    """Write the gradients to `out`, or add them to it."""
    pulled = conv_input_grad(g, weight, out.shape[2:], stride, padding, dilation, groups, precision)
    if add:
        out += pulled
    else:
        out.copy_(pulled)
