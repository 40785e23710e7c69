"""The pull-back through a convolution in C++ (`csrc/conv_input_grad`): Winograd for plain 3x3 kernels, else direct."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from twophase_fast import _native
from twophase_fast.ops import _operands
from twophase_fast.ops.conv_input_grad import reference


def refuses(g: torch.Tensor, weight: torch.Tensor, *_: object) -> list[str]:
    """Return why `conv_input_grad` does not run here."""
    dims = g.ndim - 2
    return [
        *_operands.cpu_refuses(g, weight),
        *([f"{dims} spatial axes; the kernel takes 1 or 2"] if dims > 2 else []),
    ]


def refuses_write(out: torch.Tensor, g: torch.Tensor, weight: torch.Tensor, *_: object) -> list[str]:
    """Return why `conv_input_grad_` does not run here."""
    return refuses(g, weight)


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
    """Write the gradients to `out`, or add them; an image whose elements are spread out goes through a copy."""
    if not _contiguous_images(out):
        pulled = out.contiguous() if add else out.new_empty(out.shape)
        conv_input_grad_(pulled, g, weight, stride, padding, dilation, groups, add, precision)
        out.copy_(pulled)
        return
    axes = [stride, padding, dilation]
    if g.ndim == 3:
        out, g, weight = out.unsqueeze(2), g.unsqueeze(2), weight.unsqueeze(2)
        axes = [[neutral, *axis] for neutral, axis in zip((1, 0, 1), axes, strict=True)]
    g = g if _contiguous_images(g) else g.contiguous()
    geometry = [number for axis in axes for number in axis] + [groups]
    arrays = (out.numpy(), g.numpy(), weight.contiguous().numpy())
    _native.call("conv_input_grad_", *arrays, geometry, add, precision != "highest")


conv_input_grad = partial(reference.conv_input_grad, write=conv_input_grad_)
"""The gradients [B, Cin, *size] of g [B, Cout, *out_spatial], as a new tensor."""


def _contiguous_images(tensor: torch.Tensor) -> bool:
    """Whether every image is contiguous; the distance between images is free."""
    return tensor.shape[0] == 0 or tensor[0].is_contiguous()
