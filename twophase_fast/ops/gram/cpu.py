"""Gram blocks in C++ (`csrc/gram`, `csrc/split_gram`): cache-blocked, multi-threaded, half the work when symmetric."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from twophase_fast import _native
from twophase_fast.ops import _cpu
from twophase_fast.ops._checks import ALL_FLOATS, FLOATS

refuses = partial(_cpu.refuses, dtypes=ALL_FLOATS)
"""Why `gram` and `gram_` do not run here."""


def gram(x: torch.Tensor, y: torch.Tensor | None, precision: str) -> torch.Tensor:
    """Return x yᵀ; below "highest" from split operands where a matrix unit gains from them."""
    rows = x if y is None else y
    out = _cpu.zeros((*x.shape[:-1], rows.shape[-2]), x)  # float32 for half precision
    gram_(out, x, y, precision)
    if y is None:
        symmetrize_(out)
    return out


def gram_(out: torch.Tensor, x: torch.Tensor, y: torch.Tensor | None, precision: str) -> None:
    """Add x yᵀ to `out`, in any strides; with y=None the upper triangle only."""
    if _cpu.splits(precision, out):
        return split_gram_(out, x, y)
    _native.call("gram_", *_arrays(out, x, y))


def split_gram_(
    out: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor | None,
    weights: torch.Tensor | None = None,
    *,
    all_products: bool = False,
) -> None:
    """Add x yᵀ to `out` from operands split into bfloat16 parts; with y=None the upper triangle only.

    Args:
        out: `[N, M]` or `[B, N, M]`, float32.
        x: `[N, P]` or `[B, N, P]`, float32.
        y: `[M, P]` or `[B, M, P]`, or None for x.
        weights: `[N', M']`, float32, or None: entries are multiplied by them before they are added; each counts for
            N/N' rows and M/M' columns of every matrix.
        all_products: Four products of parts instead of three: a third more time for a third of the error.
    """
    factors = None if weights is None else weights.numpy()
    _native.call_split("split_gram_", *_arrays(out, x, y), factors, all_products)


def symmetrize_(out: torch.Tensor) -> None:
    """Mirror the strictly upper triangle to the lower one."""
    _native.call("symmetrize_", _matrices(out).numpy())


def _arrays(*tensors: torch.Tensor | None) -> list[np.ndarray | None]:
    return [None if tensor is None else _matrices(tensor).numpy() for tensor in tensors]


def _matrices(tensor: torch.Tensor) -> torch.Tensor:
    """Return a batch of matrices in float32 or float64; half precision is widened, a copy."""
    wide = tensor if tensor.dtype in FLOATS else tensor.float()
    return wide.unsqueeze(0) if wide.ndim == 2 else wide
