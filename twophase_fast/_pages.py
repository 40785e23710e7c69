"""Memory of large arrays: where it comes from, and when it goes back to the system.

Memory fresh from the system is slow at first touch (a page at a time is zeroed), and an allocator that keeps what is
freed makes it fast the next time; but what it keeps stays resident. So, as a rule, arrays come from the allocator, and
only those that it never keeps have pages of their own, huge ones where the system has them.

Inside a computation (`economical`, on or off) smaller arrays have them too, and pages of dropped arrays serve later
ones: 21 MB take 5 ms at first touch in small pages, 1.9 ms in huge ones and 0.2 ms in pages used before. Pages in use
and pages kept are together never more than were in use at once before. Under a memory budget, and for large kernels
(`economical(True)`), kept pages are returned between the stages, and the allocator is asked to return the rest
(`give_back`).
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch

_OWN_PAGES = 2**25  # glibc maps arrays from this size on by themselves, and unmaps them when they are dropped
_OWN_PAGES_IF_KEPT = 2**22
_OWN_PAGES_IF_ECONOMICAL = 2**20
_HUGE = 2**21  # bytes of a huge page; memory that starts at a multiple is filled several times as fast


class _Recycler:
    """Pages of dropped arrays, for later ones.

    Pages in use and pages kept never exceed the most that were in use at once.
    """

    def __init__(self) -> None:
        self._guard = threading.RLock()  # pages may come back from a finaliser while others are taken
        self._kept: list[mmap.mmap] = []  # oldest first
        self._used = self._most = self._kept_bytes = 0
        self._closed = False

    def take(self, size: int) -> mmap.mmap:
        """Return at least `size` bytes and hardly more, kept or new."""
        with self._guard:
            fitting = [pages for pages in self._kept if size <= len(pages) <= size + size // 8]
            pages = min(fitting, key=len) if fitting else None
            if pages is None:
                self._most = max(self._most, self._used + size)
                while self._kept and self._used + size + self._kept_bytes > self._most:
                    self._remove(self._kept[0])
                pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            else:
                self._remove(pages)
            self._used += len(pages)
            return pages

    def put(self, pages: mmap.mmap) -> None:
        """Keep pages that nothing uses any more."""
        with self._guard:
            self._used -= len(pages)
            if not self._closed:
                self._kept.append(pages)
                self._kept_bytes += len(pages)

    def release(self) -> None:
        """Return everything kept to the system."""
        with self._guard:
            self._kept.clear()
            self._kept_bytes = 0

    def close(self) -> None:
        """Return everything kept, and from now on everything that comes back."""
        with self._guard:
            self._closed = True
            self.release()

    def _remove(self, pages: mmap.mmap) -> None:
        self._kept = [one for one in self._kept if one is not pages]
        self._kept_bytes -= len(pages)


_economy: ContextVar[bool] = ContextVar("economy", default=False)
_recycler: ContextVar[_Recycler | None] = ContextVar("recycler", default=None)


@contextmanager
def economical(on: bool) -> Iterator[None]:
    """Keep pages of dropped arrays for later ones inside; if `on`, keep little memory resident, rather than be fast."""
    recycler = _Recycler()
    tokens = _economy.set(on), _recycler.set(recycler)
    try:
        yield
    finally:
        recycler.close()
        _economy.reset(tokens[0])
        _recycler.reset(tokens[1])


def room(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialised tensor; a large one on a CPU has pages of its own, returned as soon as it is dropped.

    Huge pages take a fifth of the time at first touch.
    """
    count, recycler = math.prod(shape), _recycler.get()
    least = _OWN_PAGES if recycler is None else _OWN_PAGES_IF_ECONOMICAL if _economy.get() else _OWN_PAGES_IF_KEPT
    if device.type != "cpu" or count * dtype.itemsize < least or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    keeper = _Recycler() if recycler is None else recycler
    pages = keeper.take(count * dtype.itemsize + _HUGE)
    if recycler is None:
        keeper.close()
    start = -ctypes.addressof(ctypes.c_char.from_buffer(pages)) % _HUGE
    whole = count * dtype.itemsize // _HUGE * _HUGE
    if whole and hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE, start, whole)
    lent = memoryview(pages)  # the tensor keeps it alive
    weakref.finalize(lent, keeper.put, pages).atexit = False
    return torch.frombuffer(lent, dtype=dtype, count=count, offset=start).view(tuple(shape))


def resident_bytes() -> int | None:
    """Return the resident memory of this process, or None where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as pages:
            return int(pages.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return None


def give_back() -> None:
    """Return free memory to the system, inside `economical(True)`: kept pages, and what glibc's allocator keeps."""
    if not _economy.get():
        return
    recycler, trim = _recycler.get(), _trim()
    if recycler is not None:
        recycler.release()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
