"""Launch configurations of the Triton Gram kernels: square tiles of BLOCK rows, DEPTH terms a step.

Key: (architecture, mode, dtype, shape class). Every row is compiled for its architecture in the tests, without spills.
The order of candidates is by reasoning (arithmetic per byte of shared memory), not yet by measurement on a GPU.
"""

from __future__ import annotations

import torch

from twophase_fast.ops._triton.launch import Key, Launch, LaunchTable, launch

SMALL = 256
"""Up to this many rows on either side, the shape class is "small", above it "large"."""

LONGEST_SUM = 4096
"""Terms added in one accumulator before it is added to the result; longer sums lose accuracy."""

SHORTEST_SPLIT = 512
"""Terms per program below which splitting a sum no longer pays."""


def _tile(block: int, depth: int, warps: int, stages: int) -> Launch:
    return launch(BLOCK=block, DEPTH=depth, num_warps=warps, num_stages=stages)


_ROWS: dict[Key, tuple[Launch, ...]] = {
    ("sm_80", "ieee", "float32", "large"): (_tile(128, 16, 8, 3), _tile(64, 32, 4, 3)),
    ("sm_80", "ieee", "float32", "small"): (_tile(64, 32, 4, 3), _tile(32, 32, 4, 4)),
    ("sm_80", "ieee", "float64", "large"): (_tile(64, 16, 8, 3),),
    ("sm_80", "ieee", "float64", "small"): (_tile(32, 16, 4, 3),),
    ("sm_80", "ieee", "half", "large"): (_tile(128, 32, 8, 4), _tile(128, 64, 8, 3)),
    ("sm_80", "ieee", "half", "small"): (_tile(64, 64, 4, 4),),
    ("sm_80", "tf32", "float32", "large"): (_tile(128, 32, 8, 3), _tile(128, 16, 8, 4)),
    ("sm_80", "tf32", "float32", "small"): (_tile(64, 32, 4, 4),),
    ("sm_80", "tf32x3", "float32", "large"): (_tile(64, 32, 4, 3), _tile(64, 32, 4, 4)),
    ("sm_80", "tf32x3", "float32", "small"): (_tile(64, 32, 4, 4),),
    ("sm_90", "ieee", "float32", "large"): (_tile(128, 16, 8, 3), _tile(64, 16, 4, 4)),
    ("sm_90", "ieee", "float32", "small"): (_tile(64, 16, 4, 4), _tile(32, 32, 4, 4)),
    ("sm_90", "ieee", "float64", "large"): (_tile(64, 16, 8, 3),),
    ("sm_90", "ieee", "float64", "small"): (_tile(32, 16, 4, 3),),
    ("sm_90", "ieee", "half", "large"): (_tile(128, 64, 8, 4), _tile(128, 128, 8, 3)),
    ("sm_90", "ieee", "half", "small"): (_tile(64, 64, 4, 4),),
    ("sm_90", "tf32", "float32", "large"): (_tile(128, 32, 8, 4), _tile(128, 64, 8, 3)),
    ("sm_90", "tf32", "float32", "small"): (_tile(64, 64, 4, 4),),
    ("sm_90", "tf32x3", "float32", "large"): (_tile(128, 32, 8, 3), _tile(128, 32, 8, 4)),
    ("sm_90", "tf32x3", "float32", "small"): (_tile(64, 32, 4, 4),),
    ("gfx942", "ieee", "float32", "large"): (_tile(128, 16, 8, 2), _tile(64, 32, 4, 2)),
    ("gfx942", "ieee", "float32", "small"): (_tile(64, 32, 4, 2),),
    ("gfx942", "ieee", "float64", "large"): (_tile(64, 16, 4, 2),),
    ("gfx942", "ieee", "float64", "small"): (_tile(32, 16, 4, 2),),
    ("gfx942", "ieee", "half", "large"): (_tile(128, 64, 8, 2), _tile(128, 32, 8, 2)),
    ("gfx942", "ieee", "half", "small"): (_tile(64, 64, 4, 2),),
    ("gfx942", "tf32", "float32", "large"): (_tile(128, 32, 8, 2), _tile(128, 16, 8, 2)),
    ("gfx942", "tf32", "float32", "small"): (_tile(64, 32, 4, 2),),
    ("gfx942", "bf16x3", "float32", "large"): (_tile(128, 32, 8, 2), _tile(128, 16, 8, 2)),
    ("gfx942", "bf16x3", "float32", "small"): (_tile(64, 32, 4, 2),),
}

GRAM = LaunchTable("gram", _ROWS, interpreted=_tile(16, 16, 4, 1))
"""Of `gram`, `gram_` and `grouped_gram_`."""

PROGRAMS = 1
"""Programs per multiprocessor of the persistent kernels."""

MIRROR_BLOCK = 32
"""Rows of a tile of `symmetrize_`."""


def shape_class(n: int, m: int) -> str:
    """Return the shape class of a Gram block of n x m."""
    return "small" if min(n, m) <= SMALL else "large"


def sums(device: torch.device) -> tuple[int, int]:
    """Return the most terms per accumulator and the fewest per part; few under the interpreter, to test both."""
    return (32, 16) if device.type == "cpu" else (LONGEST_SUM, SHORTEST_SPLIT)
