"""The batched product in C++ (`csrc/batched_product`): matrices packed from where they lie, a shared one once."""

from __future__ import annotations

import torch

from twophase_fast import _native
from twophase_fast.ops import _operands

refuses = _operands.cpu_refuses
"""Why the ops of this folder do not run here."""


def batched_product_(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Write the products to `out` [B, K, H, n, q]."""
    _native.call("batched_product_", out.numpy(), left.numpy(), right.numpy())
