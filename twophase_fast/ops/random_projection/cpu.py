"""Random projections in C++ (`csrc/random_projection`): panels of signs, multiplied while they are in cache."""

from __future__ import annotations

import torch

from twophase_fast import _native
from twophase_fast.ops import _cpu, _operands

refuses = _operands.cpu_refuses
"""Why the ops of this folder do not run here."""


def random_projection(x: torch.Tensor, directions: int, seed: int, offset: int, precision: str) -> torch.Tensor:
    """Return x S of x [R, P]; every precision runs as "highest"."""
    out = _cpu.zeros((x.shape[0], directions), x)
    random_projection_(out, x, seed, offset, precision)
    return out


def random_projection_(out: torch.Tensor, x: torch.Tensor, seed: int, offset: int, precision: str) -> None:
    """Add x S to `out`, in any strides."""
    _native.call("random_projection_", out.numpy(), x.numpy(), seed, offset)
