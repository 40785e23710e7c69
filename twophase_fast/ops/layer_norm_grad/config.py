"""Launch configurations of the Triton backward of LayerNorm: whole rows of features, ELEMENTS in all at a time.

Key: (architecture, element size, most features). Bound by memory; what a thread holds of a row (cotangents, inputs,
weight and two sums) is what limits the row. The order of candidates is by reasoning, not yet by measurement on a GPU.
"""

from __future__ import annotations

from twophase_fast.ops._triton.launch import Key, Launch, LaunchTable, launch
from twophase_fast.ops.batch_norm_grad.config import power_of_two, warps_of

MOST_FEATURES = {4: 8192, 8: 2048}
"""By element size: more do not fit into the registers of a program."""

ADDED_BLOCK = 1024
"""Features whose sums over chunks a program adds."""

LONGEST_SUM = 32
"""Blocks of rows that one program adds up; longer sums lose accuracy."""

_PROGRAMS = 16  # per multiprocessor at least, where there are positions enough
_CLASSES = {4: (1024, 4096, 8192), 8: (1024, 2048)}


def _tile(elements: int, warps: int) -> Launch:
    return launch(ELEMENTS=elements, num_warps=warps, num_stages=1)


_NVIDIA = {
    1024: (_tile(1024, 4), _tile(2048, 8)),
    2048: (_tile(2048, 8),),
    4096: (_tile(4096, 8), _tile(4096, 16)),
    8192: (_tile(8192, 16),),
}
_AMD = {
    1024: (_tile(1024, 4), _tile(2048, 4)),
    2048: (_tile(2048, 4),),
    4096: (_tile(4096, 4), _tile(4096, 8)),
    8192: (_tile(8192, 8),),
}
_ROWS: dict[Key, tuple[Launch, ...]] = {
    (architecture, str(size), str(features)): table[features]
    for architecture, table in (("sm_80", _NVIDIA), ("sm_90", _NVIDIA), ("gfx942", _AMD))
    for size, classes in _CLASSES.items()
    for features in classes
}

NORM = LaunchTable("layer_norm_grad", _ROWS, interpreted=_tile(64, 4))
"""Of `layer_norm_grad` and `layer_norm_grad_out`."""


def features_class(features: int, size: int) -> str:
    """Return the row of the table for so many features of elements of `size` bytes."""
    return str(next(most for most in _CLASSES[size] if features <= most))


def tile_of(architecture: str, chosen: Launch, positions: int, features: int) -> Launch:
    """Return the launch whose ELEMENTS are ROWS x FEATURES, a whole row at least."""
    width = power_of_two(features)
    rows = min(power_of_two(positions), max(chosen["ELEMENTS"] // width, 1))
    warps = warps_of(architecture, chosen, rows * width)
    return launch(ROWS=rows, FEATURES=width, num_warps=warps, num_stages=chosen.num_stages)


def chunk_length(positions: int, rows: int, programs: int, processors: int) -> int:
    """Return the positions a program takes, a multiple of `rows`.

    Args:
        positions: Of a sample.
        rows: Positions of one tile.
        programs: Programs there would be with one for all positions each.
        processors: Multiprocessors of the GPU.
    """
    wanted = -(-_PROGRAMS * processors // programs)
    blocks = -(-positions // rows)
    return rows * min(-(-blocks // min(wanted, blocks)), LONGEST_SUM)
