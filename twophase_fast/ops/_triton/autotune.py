"""Which of several candidates is fastest on this device: timed once, then read from disk.

The file is `<cache>/triton/<device>.json`, with one entry per Triton version, op, key, shape class and list of
candidates, so that a changed table is timed again. Nothing is timed while a CUDA graph is recorded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from twophase_fast import settings

WARM_UPS, REPEATS = 1, 5

_known: dict[str, int] = {}

timings: dict[str, dict[str, float]] = {}
"""Entry -> candidate -> milliseconds, of what this process has timed."""


def best(
    op: str, key: Sequence[str], sizes: Sequence[int], candidates: Sequence[str], trial: Callable[[int], Any]
) -> int:
    """Return the index of the fastest candidate.

    Args:
        op: Name of the op.
        key: Row of the op's launch table.
        sizes: Sizes of the problem.
        candidates: The candidates by name.
        trial: Runs one candidate by its index.
    """
    entry = entry_name(op, key, sizes, candidates)
    if entry not in _known:
        _known.update(read(cache_file()))
    if entry not in _known:
        if torch.cuda.is_current_stream_capturing():
            return 0
        times = [_milliseconds(trial, index) for index in range(len(candidates))]
        _known[entry], timings[entry] = fastest(times), dict(zip(candidates, times))
        write(cache_file(), {**read(cache_file()), entry: _known[entry]})
    return _known[entry]


def entry_name(op: str, key: Sequence[str], sizes: Sequence[int], candidates: Sequence[str]) -> str:
    """Return the name under which a measurement is kept."""
    parts = [_triton(), op, "/".join(key), "x".join(map(str, shape_class(sizes))), ", ".join(candidates)]
    return " | ".join(parts)


@cache
def _triton() -> str:
    return version("triton")  # reads a file


def shape_class(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return every size rounded up to a power of two (0 stays 0)."""
    return tuple(1 << (size - 1).bit_length() if size > 0 else 0 for size in sizes)


def fastest(times: Sequence[float]) -> int:
    """Return the index of the smallest time."""
    return min(range(len(times)), key=times.__getitem__)


@cache
def cache_file() -> Path:
    """Return the file of the current device."""
    device = re.sub(r"[^\w.-]+", "-", torch.cuda.get_device_name())
    return settings.cache_dir() / "triton" / f"{device}.json"


def read(path: Path) -> dict[str, int]:
    """Return the measurements in a file; none if it does not exist or was cut off."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return {name: index for name, index in found.items() if isinstance(index, int)}


def write(path: Path, entries: dict[str, int]) -> None:
    """Write the measurements; readers see the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(entries, indent=1, sort_keys=True), encoding="utf-8")
    temporary.replace(path)


def _milliseconds(trial: Callable[[int], Any], index: int) -> float:
    """Return the shortest of several runs on the current stream."""
    for _ in range(WARM_UPS):
        trial(index)
    times = []
    for _ in range(REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        trial(index)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return min(times)
