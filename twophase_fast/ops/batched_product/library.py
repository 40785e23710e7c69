"""The batched product by torch's, cuBLAS's on a GPU; outputs that share an operand are rows or columns of one product.

So the shared operand is read once and never repeated in memory; the other one and the result, which are as large as the
cotangents, are copied into that order.
"""

from __future__ import annotations

import torch

from twophase_fast.ops._ieee import ieee_float32


def batched_product_(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Write the products to `out` [B, K, H, n, q]."""
    outputs, rows, columns = out.shape[1], out.shape[3], out.shape[4]
    with ieee_float32():
        if right.shape[1] != outputs:
            tall = left.transpose(1, 2).flatten(2, 3) @ right[:, 0]  # [B, H, K n, q]
            product = tall.unflatten(2, (outputs, rows)).transpose(1, 2)
        elif left.shape[1] != outputs:
            wide = left[:, 0] @ right.permute(0, 2, 3, 1, 4).flatten(3, 4)  # [B, H, n, K q]
            product = wide.unflatten(3, (outputs, columns)).permute(0, 3, 1, 2, 4)
        else:
            product = left @ right
    out.copy_(product)
