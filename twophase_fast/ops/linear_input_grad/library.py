"""The pull-back through a linear layer by torch's product, cuBLAS's on a GPU, which writes in place."""

from __future__ import annotations

import torch

from twophase_fast.ops._ieee import ieee_float32


def linear_input_grad_(
    out: torch.Tensor, g: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor | None, add: bool
) -> None:
    """Write the gradients to `out` [B, K, T, I], or add them; an `out` that is not contiguous is written by a copy."""
    later = not out.is_contiguous() or (add and scale is not None)
    target = out.new_empty(out.shape) if later else out
    rows, flat = target.flatten(0, 2), g.flatten(0, 2)
    with ieee_float32():
        if add and not later:
            rows.addmm_(flat, weight)
        else:
            torch.mm(flat, weight, out=rows)
    if add and later:
        out.add_(target) if scale is None else out.addcmul_(target, scale.unsqueeze(1))
        return
    if scale is not None:
        target *= scale.unsqueeze(1)
    if later:
        out.copy_(target)
