"""The batched product in C++ (`csrc/batched_product`): matrices packed from where they lie, a shared one once."""

from __future__ import annotations

import torch

from twophase_fast import _native
from twophase_fast.ops import _operands


def refuses(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> list[str]:
    """Return why `batched_product_` does not run here."""
    return _operands.cpu_refuses(out, left, right)


def batched_product_(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Write the products to `out` [B, K, H, n, q]."""
    _native.call("batched_product_", out.numpy(), left.numpy(), right.numpy())
