"""Which terms of which segment a program adds up, and when it writes the sum."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

NOT_YET, FIRST, LATER = 0, 1, 2
"""Whether the sum is written after a piece, and if it is the part's first one."""


class Piece(NamedTuple):
    """Terms `start` to `start + terms` of a segment; `written` is NOT_YET, FIRST or LATER."""

    segment: int
    start: int
    terms: int
    written: int


@lru_cache(maxsize=64)
def schedule(lengths: tuple[int, ...], parts: int, step: int, longest: int) -> tuple[tuple[Piece, ...], ...]:
    """Cut all segments into parts of equal work.

    Args:
        lengths: Terms of every segment.
        parts: Parts wanted; there may be fewer.
        step: Terms a kernel adds at a time; pieces start at multiples of it.
        longest: Most terms (whole steps) that are summed before the sum is written.

    Returns:
        Per part its pieces, each part as many: the rest is filled with empty ones.
    """
    steps = [-(-length // step) for length in lengths]
    capacity = max(1, -(-sum(steps) // parts))
    cut: list[list[Piece]] = [[]]
    used, unwritten = 0, 0
    for segment, length in enumerate(lengths):
        start = 0
        while start < length:
            if used == capacity:
                _end(cut[-1])
                cut.append([])
                used = unwritten = 0
            now = min(capacity - used, max(1, longest // step) - unwritten, -(-(length - start) // step))
            cut[-1].append(Piece(segment, start, min(now * step, length - start), NOT_YET))
            start, used, unwritten = start + now * step, used + now, unwritten + now
            if unwritten * step >= longest:
                _end(cut[-1])
                unwritten = 0
    _end(cut[-1])
    width = max(map(len, cut))
    return tuple(tuple(part + [Piece(0, 0, 0, NOT_YET)] * (width - len(part))) for part in cut)


def _end(part: list[Piece]) -> None:
    """Let the sum be written after the last piece."""
    if part and part[-1].written == NOT_YET:
        kind = LATER if any(piece.written for piece in part) else FIRST
        part[-1] = part[-1]._replace(written=kind)
