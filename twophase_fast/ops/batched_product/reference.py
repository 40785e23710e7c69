"""Definition of the batched product in plain torch; in float64 it is the truth.

out[b,k,h] = left[b,k,h]·right[b,k,h]
"""

from __future__ import annotations

import torch

from twophase_fast.ops._ieee import ieee_float32


def batched_product_(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Write the products to `out` [B, K, H, n, q]."""
    with ieee_float32():
        out.copy_(left @ right)
