"""Into how many parts the sums of a matrix product are split, so that every multiprocessor has work."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

_INTERPRETED_MULTIPROCESSORS = 3
_MOST_ITEMS = 8
"""Limit on (tile, part) items per multiprocessor while splitting: it bounds the memory of partial sums."""


@dataclass(frozen=True)
class Split:
    """A sum of P terms as `parts` parts of `chunks` chunks of `chunk` terms, the last ones shorter.

    Attributes:
        parts: Programs that share one tile; each writes a partial sum.
        chunks: Chunks per part.
        chunk: Terms per chunk, a multiple of the kernel's step.
    """

    parts: int
    chunks: int
    chunk: int


@cache
def multiprocessors(device: torch.device) -> int:
    """Return how many programs run side by side on `device`, at one per multiprocessor."""
    if device.type == "cpu":
        return _INTERPRETED_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def split_sum(terms: int, tiles: int, processors: int, step: int, longest: int, shortest: int) -> Split:
    """Split the sums of all tiles so that the last wave of programs leaves few multiprocessors idle.

    Args:
        terms: Terms of the sum, at least 1.
        tiles: Tiles of the matrix.
        processors: Programs that run side by side.
        step: Terms a kernel adds at a time.
        longest: Most terms per chunk.
        shortest: Fewest terms per part.
    """
    parts = parts_of(terms, tiles, processors, step, shortest)
    steps = -(-terms // step)
    chunk = step * min(-(-steps // parts), max(1, longest // step))
    chunks = -(-terms // chunk)
    per_part = -(-chunks // parts)
    return Split(parts=-(-chunks // per_part), chunks=per_part, chunk=chunk)


def parts_of(terms: int, tiles: int, processors: int, step: int, shortest: int) -> int:
    """Return the fewest parts within 5 % of the shortest time; the arguments are those of `split_sum`."""
    most = max(1, terms // max(shortest, step))
    limit = max(1, min(most, _MOST_ITEMS * processors // max(tiles, 1)))
    # Time in units of a whole tile's sum: the number of waves of programs, each doing one part.
    times = [-(-tiles * parts // processors) / parts for parts in range(1, limit + 1)]
    return next(parts for parts, time in enumerate(times, start=1) if time <= 1.05 * min(times))
