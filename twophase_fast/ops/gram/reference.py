"""Gram blocks in plain torch: the definition, in the dtype of the inputs (float32 for half precision)."""

from __future__ import annotations

import torch

from twophase_fast.ops._ieee import ieee_float32


def result_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which products of `dtype` are summed and returned."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def gram(x: torch.Tensor, y: torch.Tensor | None, precision: str) -> torch.Tensor:
    """Return x yᵀ over the last axis; y=None means x."""
    x, y = widened(x), None if y is None else widened(y)
    with ieee_float32():
        product = x @ (x if y is None else y).mT
    return symmetric(product) if y is None else product


def gram_(out: torch.Tensor, x: torch.Tensor, y: torch.Tensor | None, precision: str) -> None:
    """Add x yᵀ to `out`."""
    x, y = widened(x), None if y is None else widened(y)
    with ieee_float32():
        out += x @ (x if y is None else y).mT


def symmetrize_(out: torch.Tensor) -> None:
    """Mirror the strictly upper triangle of the last two axes to the lower one."""
    out.copy_(symmetric(out))


def symmetric(matrix: torch.Tensor) -> torch.Tensor:
    """Return the symmetric matrix that has the upper triangle of `matrix`."""
    return matrix.triu() + matrix.triu(1).mT


def widened(operand: torch.Tensor) -> torch.Tensor:
    """Return an operand in the dtype in which its products are summed: half precision becomes float32, a copy."""
    return operand.to(result_dtype(operand.dtype))
