"""Gram blocks in C++ (`csrc/gram`): cache-blocked, multi-threaded, half the work when symmetric."""

from __future__ import annotations

import torch

from twophase_fast import _native
from twophase_fast.ops._checks import ALL_FLOATS, FLOATS
from twophase_fast.ops._cpu import refuses, zeros


def refuses_gram(x: torch.Tensor, y: torch.Tensor | None, precision: str) -> list[str]:
    """Return why `gram` does not run here."""
    return refuses(x, y, dtypes=ALL_FLOATS)


def refuses_gram_(out: torch.Tensor, x: torch.Tensor, y: torch.Tensor | None, precision: str) -> list[str]:
    """Return why `gram_` does not run here."""
    return refuses(out, x, y, dtypes=ALL_FLOATS)


def refuses_symmetrize_(out: torch.Tensor) -> list[str]:
    """Return why `symmetrize_` does not run here."""
    return refuses(out)


def gram(x: torch.Tensor, y: torch.Tensor | None, precision: str) -> torch.Tensor:
    """Return x yᵀ; every precision runs as "highest" (no unit of this tier gains from less)."""
    rows = x if y is None else y
    out = zeros((*x.shape[:-1], rows.shape[-2]), x)  # float32 for half precision
    gram_(out, x, y, precision)
    if y is None:
        symmetrize_(out)
    return out


def gram_(out: torch.Tensor, x: torch.Tensor, y: torch.Tensor | None, precision: str) -> None:
    """Add x yᵀ to `out`, in any strides; with y=None the upper triangle only."""
    left, right = _matrices(x), None if y is None else _matrices(y)
    _native.call("gram_", _matrices(out).numpy(), left.numpy(), None if right is None else right.numpy())


def symmetrize_(out: torch.Tensor) -> None:
    """Mirror the strictly upper triangle to the lower one."""
    _native.call("symmetrize_", _matrices(out).numpy())


def _matrices(tensor: torch.Tensor) -> torch.Tensor:
    """Return a batch of matrices in float32 or float64; half precision is widened, a copy."""
    wide = tensor if tensor.dtype in FLOATS else tensor.float()
    return wide.unsqueeze(0) if wide.ndim == 2 else wide
