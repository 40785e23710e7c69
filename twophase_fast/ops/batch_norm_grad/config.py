"""Launch configurations of the Triton backward of BatchNorm and ReLU: ELEMENTS of one image at a time.

Key: (architecture, element size). Bound by memory: 32 bytes a thread are on their way, and registers are few, so that
many programs fit a multiprocessor. The order of candidates is by reasoning, not yet by measurement on a GPU.
"""

from __future__ import annotations

from twophase_fast.ops._triton.launch import Key, Launch, LaunchTable, launch

PROGRAMS = 16
"""Programs per multiprocessor at least, where the cotangents of a sample are enough to be shared out."""

WIDE = 4
"""Elements of a wide load."""

SUM_ROWS, SUM_BLOCKS = 64, 8
"""Sums over blocks of positions: so many rows a program, so many blocks at a time."""

_MOST_CHANNELS = 256  # whose sums go through shared memory


def _tile(elements: int, warps: int) -> Launch:
    return launch(ELEMENTS=elements, num_warps=warps, num_stages=1)


_CANDIDATES: dict[Key, tuple[Launch, ...]] = {
    ("sm_80", "4"): (_tile(1024, 4), _tile(2048, 8), _tile(2048, 4)),
    ("sm_80", "8"): (_tile(1024, 4), _tile(1024, 8)),
    ("sm_90", "4"): (_tile(1024, 4), _tile(2048, 8), _tile(2048, 4)),
    ("sm_90", "8"): (_tile(1024, 4), _tile(1024, 8)),
    ("gfx942", "4"): (_tile(1024, 4), _tile(2048, 4)),
    ("gfx942", "8"): (_tile(1024, 4), _tile(512, 4)),
}

NORM = LaunchTable("batch_norm_grad", _CANDIDATES, interpreted=_tile(64, 4))
"""Of `batch_norm_grad` and `batch_norm_grad_out`."""

RELU = LaunchTable("relu_grad_", _CANDIDATES, interpreted=_tile(64, 4))
"""Of `relu_grad_`."""


def alignment(positions: int) -> int:
    """Return the elements of a wide load that rows of so many positions allow."""
    return 1 if positions % WIDE else WIDE


def tile_of(architecture: str, chosen: Launch, channels: int, positions: int) -> Launch:
    """Return the launch whose ELEMENTS are CHANNELS x POSITIONS, a whole row of positions where it fits.

    Where rows do not start at wide loads every element has an address of its own: half as many then.
    """
    elements = chosen["ELEMENTS"] // (2 if positions > 1 and alignment(positions) == 1 else 1)
    width = min(power_of_two(positions), elements)
    rows = min(power_of_two(channels), elements // width, _MOST_CHANNELS)
    warps = warps_of(architecture, chosen, rows * width)
    return launch(CHANNELS=rows, POSITIONS=width, num_warps=warps, num_stages=chosen.num_stages)


def warps_of(architecture: str, chosen: Launch, elements: int) -> int:
    """Return as many of a launch's warps as have elements of their own.

    More would hold copies of the others' elements. In place that is wrong: one may read what another has written, and
    bring it into a sum over warps.
    """
    lanes = 64 if architecture == "gfx942" else 32
    return min(chosen.num_warps, max(elements // (lanes * WIDE), 1))


def shared_out(cotangents: int, programs: int, processors: int) -> int:
    """Return how many cotangents a program takes, where one for all cotangents each would be so many programs."""
    groups = min(cotangents, -(-PROGRAMS * processors // programs))
    return -(-cotangents // groups)


def power_of_two(count: int) -> int:
    """Return the least power of two that is no less than a count."""
    return 1 << max(count - 1, 0).bit_length()
