"""Per-sample gradients in C++ (`csrc/per_sample_grad`): one product per sample, classes stacked into rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from twophase_fast import _native
from twophase_fast._pages import room
from twophase_fast.ops import _operands
from twophase_fast.ops.per_sample_grad import reference

refuses = _operands.cpu_refuses
"""Why `per_sample_grad` and `per_sample_grad_out` do not run here."""


def refuses_conv(x: torch.Tensor, g: torch.Tensor, *_: object) -> list[str]:
    """Return why `per_sample_conv_grad` does not run here."""
    dims = x.ndim - 2
    return [*_operands.cpu_refuses(x, g), *([f"{dims} spatial axes; the kernel takes 1 or 2"] if dims > 2 else [])]


def refuses_conv_out(out: torch.Tensor, x: torch.Tensor, g: torch.Tensor, *_: object) -> list[str]:
    """Return why `per_sample_conv_grad_out` does not run here."""
    return refuses_conv(x, g)


def per_sample_grad_out(out: torch.Tensor, a: torch.Tensor, g: torch.Tensor, precision: str) -> None:
    """Write the gradients to `out`, whose last axis is contiguous."""
    _native.call("linear_grad", out.numpy(), a.numpy(), g.numpy())


def _in_pages(new: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a function that makes the room that `new` makes, large ones of huge pages: these fill twice as fast."""

    def made(x: torch.Tensor, g: torch.Tensor, *rest: Any) -> torch.Tensor:
        like = new(x.to("meta"), g.to("meta"), *rest)
        return room(like.shape, like.dtype, x.device)

    return made


per_sample_grad = _operands.into_new(_in_pages(reference.new_linear), per_sample_grad_out)
"""The gradients [N, C, p, d] of a [N, T, d], g [N, C, T, p], as a new tensor."""


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
    """Write the gradients to `out`, contiguous from the fourth axis on; one spatial axis runs as the second of two."""
    axes = [kernel_size, stride, padding, dilation]
    if x.ndim == 3:
        x, g = x.unsqueeze(2), g.unsqueeze(3)
        axes = [[neutral, *axis] for neutral, axis in zip((1, 1, 0, 1), axes, strict=True)]
    geometry = [number for axis in axes for number in axis] + [groups]
    _native.call("conv_grad", out.flatten(3).numpy(), x.numpy(), g.numpy(), geometry, precision != "highest")


per_sample_conv_grad = _operands.into_new(_in_pages(reference.new_conv), per_sample_conv_grad_out)
"""The gradient of every sample and class with respect to the weight of a convolution, as a new tensor."""
