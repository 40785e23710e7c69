"""Large arrays whose memory goes back to the system when they are dropped.

An allocator keeps what is freed for later use, so that memory held once stays resident. Arrays that live through a
stage therefore get pages of their own (`room`), and between stages the allocator is asked to return the rest
(`give_back`).
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from collections.abc import Callable, Sequence
from functools import cache

import torch

_OWN_PAGES = 2**20


def room(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialised tensor; a large one on a CPU has pages of its own, returned as soon as it is dropped."""
    count = math.prod(shape)
    if device.type != "cpu" or count * dtype.itemsize < _OWN_PAGES:
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    pages = mmap.mmap(-1, count * dtype.itemsize)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=dtype, count=count).view(tuple(shape))


def resident_bytes() -> int | None:
    """Return the resident memory of this process, or None where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as pages:
            return int(pages.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return None


def give_back() -> None:
    """Ask the C library to return free memory to the system (glibc; elsewhere nothing happens)."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
