"""Seconds per stage: the host's clock, or events on a GPU's streams, which go on while the host is elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from twophase_fast.ntk.checks import is_asynchronous


class Stopwatch:
    """Measures stages.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._events = is_asynchronous(device) and torch.cuda.is_available()
        self._pending: list[tuple[str, str | None, torch.cuda.Event, torch.cuda.Event]] = []
        self._stages: list[str] = []  # that are being timed, the innermost last

    @contextmanager
    def timed(self, stage: str, seconds: dict[str, float]) -> Iterator[None]:
        """Add the time of what is done inside to `seconds`; on a GPU when it is settled.

        A stage inside another one is not counted there.
        """
        outer = self._stages[-1] if self._stages else None
        self._stages.append(stage)
        try:
            with self._measured(stage, outer, seconds):
                yield
        finally:
            self._stages.pop()

    @contextmanager
    def _measured(self, stage: str, outer: str | None, seconds: dict[str, float]) -> Iterator[None]:
        if not self._events:
            started = time.perf_counter()
            try:
                yield
            finally:
                _add(seconds, stage, outer, time.perf_counter() - started)
        elif torch.cuda.is_current_stream_capturing():
            yield  # recorded in a graph, not done
        else:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            yield
            end.record()
            self._pending.append((stage, outer, start, end))

    def settle(self, seconds: dict[str, float]) -> None:
        """Add what was put off; waits for it."""
        for stage, outer, start, end in self._pending:
            end.synchronize()
            _add(seconds, stage, outer, start.elapsed_time(end) / 1e3)
        self._pending.clear()


def _add(seconds: dict[str, float], stage: str, outer: str | None, more: float) -> None:
    seconds[stage] += more
    if outer is not None:
        seconds[outer] -= more
