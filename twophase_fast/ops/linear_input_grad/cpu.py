"""The pull-back through a linear layer in C++ (`csrc/linear_input_grad`): one product, scaled as it is written."""

from __future__ import annotations

import torch

from twophase_fast import _native
from twophase_fast.ops import _operands

refuses = _operands.cpu_refuses
"""Why the ops of this folder do not run here."""


def linear_input_grad_(
    out: torch.Tensor, g: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor | None, add: bool
) -> None:
    """Write the gradients to `out` [B, K, T, I], or add them; what is not contiguous is copied, and copied back."""
    if not out.is_contiguous():
        pulled = out.contiguous() if add else out.new_empty(out.shape)
        linear_input_grad_(pulled, g, weight, scale, add)
        out.copy_(pulled)
        return
    factor = None if scale is None else scale.contiguous().numpy()
    _native.call("linear_input_grad_", out.numpy(), g.contiguous().numpy(), weight.numpy(), factor, add)
