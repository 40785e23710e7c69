"""Definition of the pull-back through a convolution in plain torch; in float64 it is the truth.

out[b,i,y] = Σ_{o,k} g[b,o,q] weight[o,i,k] over the positions q with q·stride + k·dilation − padding = y

That is torch's transposed convolution. Rows of the input that no output position reaches, because
the last step of the stride would leave the image, are its output padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import conv_transpose1d, conv_transpose2d, conv_transpose3d

from twophase_fast.ops._ieee import ieee_convolutions

_TRANSPOSED = {1: conv_transpose1d, 2: conv_transpose2d, 3: conv_transpose3d}


def conv_input_grad(
    g: torch.Tensor,
    weight: torch.Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    precision: str,
    *,
    write: Callable[..., None] | None = None,
) -> torch.Tensor:
    """Return the gradients [B, Cin, *size] of g [B, Cout, *out_spatial]; `write` is a backend's `conv_input_grad_`."""
    out = g.new_empty(g.shape[0], weight.shape[1] * groups, *size)
    (write or conv_input_grad_)(out, g, weight, stride, padding, dilation, groups, False, precision)
    return out


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
    with ieee_convolutions():
        pulled = transposed(g, weight, out.shape[2:], stride, padding, dilation, groups)
    if add:
        out += pulled
    else:
        out.copy_(pulled)


def transposed(
    g: torch.Tensor,
    weight: torch.Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """Return the gradients [B, Cin, *size] in whatever precision torch's convolutions have now."""
    rest = [
        extent - ((positions - 1) * step - 2 * pad + gap * (taps - 1) + 1)
        for extent, positions, taps, step, pad, gap in zip(
            size, g.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    convolve = _TRANSPOSED[len(size)]
    return convolve(g, weight, None, list(stride), list(padding), rest, groups, list(dilation))
