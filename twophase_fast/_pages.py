"""Memory of large arrays: where it comes from, and when it goes back to the system.

Memory fresh from the system is slow at first touch (a page at a time is zeroed), and an allocator that keeps what is
freed makes it fast the next time; but what it keeps stays resident. So, as a rule, arrays come from the allocator, and
only those that it never keeps have pages of their own, huge ones where the system has them. Under a memory budget,
and for large kernels (`economical`), every large array has pages of its own, and the allocator is asked to return the
rest (`give_back`). Pages that were dropped are kept, within a bound, for the arrays that come next.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch

_OWN_PAGES = 2**25  # glibc maps arrays from this size on by themselves, and unmaps them when they are dropped
_OWN_PAGES_IF_ECONOMICAL = 2**20
_HUGE = 2**21  # bytes of a huge page; memory that starts at a multiple is filled several times as fast
_LOOSE = 1.5  # spare pages may be so many times as large as what they are used for


class _Spare:
    """Pages that were dropped, the latest last, as long as all pages in use and kept stay within a bound."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._used = 0
        self._pages: list[mmap.mmap] = []

    def take(self, size: int) -> mmap.mmap:
        """Return pages for an array: spare ones that are not much larger, or new ones."""
        found = next((pages for pages in reversed(self._pages) if size <= len(pages) <= _LOOSE * size), None)
        if found is None:
            self._shrink(size)
            found = _fresh(size)
        else:
            self._pages.remove(found)
        self._used += len(found)
        return found

    def keep(self, pages: mmap.mmap) -> None:
        """Take pages back."""
        self._used -= len(pages)
        self._pages.append(pages)
        self._shrink(0)

    def close(self) -> None:
        """Return all pages to the system, and keep none that come later."""
        self._bound = 0
        self._pages.clear()

    def _shrink(self, more: int) -> None:
        """Return the oldest pages to the system until there is room for more."""
        while self._pages and self._used + sum(map(len, self._pages)) + more > self._bound:
            self._pages.pop(0)


_spare: ContextVar[_Spare | None] = ContextVar("spare", default=None)


@contextmanager
def economical(on: bool, bound: int = 0) -> Iterator[None]:
    """Keep little memory resident inside, rather than be fast.

    Args:
        on: Whether to.
        bound: Pages of large arrays that were dropped are kept for the next ones while all take at most so many bytes.
    """
    pages = _Spare(bound) if on else None
    token = _spare.set(pages)
    try:
        yield
    finally:
        _spare.reset(token)
        if pages is not None:
            pages.close()


def room(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialised tensor; a large one on a CPU has pages of its own, returned as soon as it is dropped.

    Huge pages take a fifth of the time at first touch.
    """
    count, spare = math.prod(shape), _spare.get()
    least = _OWN_PAGES if spare is None else _OWN_PAGES_IF_ECONOMICAL
    if device.type != "cpu" or count * dtype.itemsize < least or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    size = count * dtype.itemsize
    pages = _fresh(size + _HUGE) if spare is None else spare.take(size + _HUGE)
    memory = (ctypes.c_char * size).from_buffer(pages, _to_huge_page(pages))
    if spare is not None:
        weakref.finalize(memory, spare.keep, pages).atexit = False
    return torch.frombuffer(memory, dtype=dtype, count=count).view(tuple(shape))


def _fresh(size: int) -> mmap.mmap:
    """Return new pages, huge ones from the first place on where one can start."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE, _to_huge_page(pages), (size - _HUGE) // _HUGE * _HUGE or mmap.PAGESIZE)
    return pages


def _to_huge_page(pages: mmap.mmap) -> int:
    """Return the bytes up to the first place where a huge page can start."""
    return -ctypes.addressof(ctypes.c_char.from_buffer(pages)) % _HUGE


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
    if _spare.get() is not None and trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
