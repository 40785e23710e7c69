"""Launch configurations of the Triton pair moments, and how long the chunks are.

Key: (architecture, element size). Sums are float64: about twelve float64 instructions an element are less than the time
to read it on data-centre GPUs (sm_80, sm_90 and gfx942 do one float64 instruction per two float32 ones or better). On
consumer GPUs, with 1/64 of that rate, they cost about twice the time to read; the result is the same.
"""

from __future__ import annotations

import torch

from twophase_fast.ops._triton.launch import Launch, LaunchTable, launch
from twophase_fast.ops._triton.split import multiprocessors


def _block(block: int, warps: int, stages: int) -> Launch:
    return launch(BLOCK=block, STAGES=stages, num_warps=warps)


_SIZES = ("2", "4", "8")
_CANDIDATES = {
    "sm_80": (_block(512, 4, 3), _block(512, 4, 1), _block(1024, 8, 4)),
    "sm_90": (_block(512, 4, 4), _block(512, 4, 1), _block(1024, 8, 4)),
    "gfx942": (_block(512, 4, 1), _block(512, 4, 2), _block(1024, 4, 1)),
}

MOMENTS = LaunchTable(
    "pair_moments",
    {(architecture, size): candidates for architecture, candidates in _CANDIDATES.items() for size in _SIZES},
    interpreted=_block(16, 4, 1),
)
"""Of `pair_moments` and `residual_moments`: BLOCK elements of each side at a time, STAGES − 1 of them on their way.

Sums take about 110 registers a thread, so few programs fit a multiprocessor; loads ahead of time keep memory busy.
"""

SUM_BLOCK = 256
"""Chunks whose partial moments are added at a time."""

CHUNKS_PER_MULTIPROCESSOR = 32
"""Chunks that a large model is cut into, per multiprocessor."""

SHORTEST_CHUNK, LONGEST_CHUNK = 1 << 12, 1 << 18
"""Elements of a chunk."""


def chunk_length(elements: int, device: torch.device) -> int:
    """Return the elements per chunk, a power of two: many chunks per multiprocessor, but none too short.

    Under the interpreter chunks have 32 elements, so that small tensors have several.
    """
    if device.type == "cpu":
        return 32
    wanted = max(1, elements // (multiprocessors(device) * CHUNKS_PER_MULTIPROCESSOR))
    return min(max(1 << (wanted - 1).bit_length(), SHORTEST_CHUNK), LONGEST_CHUNK)
