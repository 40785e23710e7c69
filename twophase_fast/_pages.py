"""Memory of large arrays: where it comes from, and when it goes back to the system.

Memory fresh from the system is slow at first touch (a page at a time is zeroed), and an allocator that keeps what is
freed makes it fast the next time; but what it keeps stays resident. So, as a rule, arrays come from the allocator, and
only those that it never keeps have pages of their own, huge ones where the system has them. Under a memory budget,
and for large kernels (`economical`), every large array has pages of its own, returned as soon as it is dropped, and the
allocator is asked to return the rest (`give_back`).
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch

_OWN_PAGES = 2**25  # glibc maps arrays from this size on by themselves, and unmaps them when they are dropped
_OWN_PAGES_IF_ECONOMICAL = 2**20
_HUGE = 2**21  # bytes of a huge page; memory that starts at a multiple is filled several times as fast


_economy: ContextVar[bool] = ContextVar("economy", default=False)


@contextmanager
def economical(on: bool) -> Iterator[None]:
    """Keep little memory resident inside, rather than be fast."""
    token = _economy.set(on)
    try:
        yield
    finally:
        _economy.reset(token)


def room(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialised tensor; a large one on a CPU has pages of its own, returned as soon as it is dropped.

    Huge pages take a fifth of the time at first touch.
    """
    count = math.prod(shape)
    least = _OWN_PAGES_IF_ECONOMICAL if _economy.get() else _OWN_PAGES
    if device.type != "cpu" or count * dtype.itemsize < least or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    pages = mmap.mmap(-1, count * dtype.itemsize + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(pages)) % _HUGE
    whole = count * dtype.itemsize // _HUGE * _HUGE
    if whole and hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE, start, whole)
    return torch.frombuffer(pages, dtype=dtype, count=count, offset=start).view(tuple(shape))


def resident_bytes() -> int | None:
    """Return the resident memory of this process, or None where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as pages:
            return int(pages.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return None


def give_back() -> None:
    """Ask the C library to return free memory to the system, inside `economical` (glibc; elsewhere nothing happens)."""
    trim = _trim()
    if _economy.get() and trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
