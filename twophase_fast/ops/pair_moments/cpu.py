"""Pair moments in C++ (`csrc/pair_moments`): one pass, every element read once, float64 accumulation."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from twophase_fast import _native
from twophase_fast.ops import _cpu
from twophase_fast.ops._checks import ALL_FLOATS
from twophase_fast.ops.pair_moments.layout import in_one_order

refuses = partial(_cpu.refuses, dtypes=ALL_FLOATS)
"""Why the ops of this folder do not run here."""


def pair_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], runs: int) -> torch.Tensor:
    """Return `[R, S, L, 8]`, bitwise the same for any number of threads."""
    per_run = len(xs) // runs
    groups = [_vectors([*xs[i::per_run], *ys[i : i + 1]]) for i in range(per_run)]
    left = [group[run] for run in range(runs) for group in groups]
    right = [group[-1] for group in groups] if ys else []
    return torch.from_numpy(_native.call("pair_moments", left, right, runs))


def residual_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], scale: float) -> torch.Tensor:
    """Return `[L, 2]`: ‖e‖² and <e, x> with e = y − scale·x by fused multiply-add."""
    pairs = [_vectors([x, y]) for x, y in zip(xs, ys)]
    left, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return torch.from_numpy(_native.call("residual_moments", left, right, scale))


def _vectors(tensors: list[torch.Tensor]) -> list[np.ndarray]:
    """Return the tensors as flat arrays, bfloat16 as its bits."""
    flat = in_one_order(tensors)
    return [(t.view(torch.uint16) if t.dtype == torch.bfloat16 else t).numpy() for t in flat]
