"""Pair moments in C++ (`csrc/pair_moments`): one pass, every element read once, float64 accumulation."""

from __future__ import annotations

import torch

from twophase_fast import _native
from twophase_fast.ops._checks import ALL_FLOATS
from twophase_fast.ops._cpu import refuses


def refuses_pair_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], runs: int) -> list[str]:
    """Return why `pair_moments` does not run here."""
    return refuses(*xs, *ys, dtypes=ALL_FLOATS)


def refuses_residual_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], scale: float) -> list[str]:
    """Return why `residual_moments` does not run here."""
    return refuses(*xs, *ys, dtypes=ALL_FLOATS)


def pair_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], runs: int) -> torch.Tensor:
    """Return `[R, S, L, 8]`, bitwise the same for any number of threads."""
    per_run = len(xs) // runs
    rows = []
    for position in range(per_run):
        group = _in_one_order([*xs[position::per_run], *ys[position : position + 1]])
        rows.append(_native.call("pair_moments", _views(group), bool(ys)))
    return torch.stack([torch.from_numpy(row) for row in rows], dim=2)


def residual_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], scale: float) -> torch.Tensor:
    """Return `[L, 2]`: ‖e‖² and <e, x> with e = y − scale·x by fused multiply-add."""
    pairs = [_views(_in_one_order([x, y])) for x, y in zip(xs, ys)]
    return torch.stack([torch.from_numpy(_native.call("residual_moments", *pair, scale)) for pair in pairs])


def _in_one_order(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the tensors flat, in one order of elements; dense ones of equal strides are not copied."""
    strides = {tensor.stride() for tensor in tensors}
    if len(strides) == 1 and _is_dense(tensors[0]):
        size = (tensors[0].numel(),)
        return [tensor.as_strided(size, (1,)) for tensor in tensors]
    return [tensor.reshape(-1) for tensor in tensors]


def _is_dense(tensor: torch.Tensor) -> bool:
    order = sorted(range(tensor.ndim), key=tensor.stride)
    return tensor.permute(order[::-1]).is_contiguous()


def _views(tensors: list[torch.Tensor]) -> list:
    return [(t.view(torch.uint16) if t.dtype == torch.bfloat16 else t).numpy() for t in tensors]
