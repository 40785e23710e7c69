"""Memory of large arrays: where it comes from, and when it goes back to the system.

Memory fresh from the system is slow at first touch (a page at a time is zeroed), which took up to a third of the time
of a small kernel. So while a kernel is computed (`recycling`) large arrays lie in an arena of huge pages, where the
system has them, and use the pages again of those that were dropped, within a bound. After the call the arena is kept
for the next one, its pages marked so that the system takes them whenever it wants memory. Under a memory budget it is
not kept, and the allocator is asked to return what it keeps (`give_back`).
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Lock

import numpy as np
import torch

_OWN_PAGES = 2**25  # glibc maps arrays from this size on by themselves, and unmaps them when they are dropped
_OWN_PAGES_IF_RECYCLED = 2**20
_HUGE = 2**21  # bytes of a huge page; memory that starts at a multiple is filled several times as fast
_UNIT = 2**16  # arrays start at multiples, of which a huge page has so many:
_PER_PAGE = _HUGE // _UNIT
_PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
_KEPT = 2**29  # bytes of pages that are kept between calls, at most


class _Arena:
    """Address space in which arrays lie as low as there is room, so that a repeated call finds the pages it had."""

    def __init__(self) -> None:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 * 3 // _HUGE * _HUGE
        self._pages = mmap.mmap(-1, size + _HUGE, flags=_PRIVATE)  # nothing is resident before it is touched
        self._first = _to_huge_page(self._pages)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._pages.madvise(mmap.MADV_HUGEPAGE, self._first, size)
        self._used = np.zeros(size // _UNIT, dtype=bool)
        self._touched = np.zeros(size // _HUGE, dtype=bool)
        self._dropped: deque[slice] = deque()
        self.bound = 0

    def take(self, size: int) -> ctypes.Array[ctypes.c_char] | None:
        """Return memory for an array, or None where there is no room. Free pages go to the system at the bound."""
        self._collect()
        units = self._room_for(-(-size // _UNIT))
        if units is None:
            return None
        self._used[units] = True
        self._touched[units.start // _PER_PAGE : -(-units.stop // _PER_PAGE)] = True
        self._release(self.bound)
        memory = (ctypes.c_char * size).from_buffer(self._pages, self._first + units.start * _UNIT)
        weakref.finalize(memory, self._dropped.append, units).atexit = False  # may come from any thread
        return memory

    def rest(self) -> None:
        """Keep some of the free pages, marked so that the system takes them whenever it wants memory."""
        self._collect()
        self._release(_KEPT if hasattr(mmap, "MADV_FREE") else 0)
        for first, last in _runs(self._touched & ~self._holding()):
            self._pages.madvise(mmap.MADV_FREE, self._first + first * _HUGE, (last - first) * _HUGE)

    def _collect(self) -> None:
        while self._dropped:
            self._used[self._dropped.popleft()] = False

    def _room_for(self, count: int) -> slice | None:
        """Return the first so many units that are free."""
        for first, last in _runs(~self._used):
            if last - first >= count:
                return slice(first, first + count)
        return None

    def _holding(self) -> np.ndarray:
        """Return which huge pages hold a part of an array."""
        return self._used.reshape(-1, _PER_PAGE).any(1)

    def _release(self, bound: int) -> None:
        """Return the highest free pages to the system, as long as all that were touched take more than the bound."""
        excess = np.count_nonzero(self._touched) - bound // _HUGE
        if excess <= 0:
            return
        free = np.flatnonzero(self._touched & ~self._holding())[-excess:]
        released = np.zeros_like(self._touched)
        released[free] = True
        for first, last in _runs(released):
            self._pages.madvise(mmap.MADV_DONTNEED, self._first + first * _HUGE, (last - first) * _HUGE)
        self._touched &= ~released


def _runs(where: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield first and last + 1 of every run of True."""
    edges = np.flatnonzero(np.diff(where, prepend=False, append=False))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist())


class _Between:
    """The arena kept from one call to the next; one call at a time has it."""

    def __init__(self) -> None:
        self._arena: _Arena | None = None
        self._lock = Lock()

    def take(self) -> _Arena | None:
        """Return the arena, if there is one, and let go of it."""
        with self._lock:
            arena, self._arena = self._arena, None
        return arena

    def put(self, arena: _Arena) -> None:
        """Keep an arena in place of the one that is there."""
        arena.rest()
        with self._lock:
            self._arena = arena


_current: ContextVar[_Arena | None] = ContextVar("arena", default=None)
_between = _Between()


@contextmanager
def recycling(bound: int, *, lasting: bool) -> Iterator[None]:
    """Let large arrays inside use each other's pages again.

    Args:
        bound: Bytes of pages up to which free ones are kept for the arrays that come next.
        lasting: Whether some are kept for the next call too. Otherwise those of earlier calls go to the system first.
    """
    arena = _between.take()
    if arena is None or not lasting:
        arena = None  # what was kept goes before anything is taken
        arena = _new_arena()
    if arena is not None:
        arena.bound = bound
    token = _current.set(arena)
    try:
        yield
    finally:
        _current.reset(token)
        if arena is not None and lasting:
            _between.put(arena)


def _new_arena() -> _Arena | None:
    """Return a new arena, or None where the system gives no address space, or counts it as memory in use.

    Arrays then lie where they do outside `recycling`.
    """
    if not hasattr(mmap, "MADV_DONTNEED") or _counts_address_space():
        return None
    try:
        return _Arena()
    except OSError:
        return None


def _counts_address_space() -> bool:
    """Return whether Linux counts private memory as used before it is touched (`vm.overcommit_memory` = 2)."""
    try:
        with open("/proc/sys/vm/overcommit_memory", encoding="ascii") as policy:
            return policy.read().strip() == "2"
    except OSError:
        return False


def room(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialised tensor.

    A large one on a CPU lies in the arena inside `recycling`; elsewhere it has pages of its own, returned as soon as it
    is dropped. Huge pages take a fifth of the time at first touch.
    """
    size, arena = math.prod(shape) * dtype.itemsize, _current.get()
    least = _OWN_PAGES if arena is None else _OWN_PAGES_IF_RECYCLED
    if device.type != "cpu" or size < least or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    memory = None if arena is None else arena.take(size)
    if memory is None:
        pages = _fresh(size + _HUGE)
        memory = (ctypes.c_char * size).from_buffer(pages, _to_huge_page(pages))
    return torch.frombuffer(memory, dtype=dtype, count=math.prod(shape)).view(tuple(shape))


def _fresh(size: int) -> mmap.mmap:
    """Return new pages, huge ones from the first place on where one can start."""
    pages = mmap.mmap(-1, size, flags=_PRIVATE)
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
    """Ask the C library to return free memory to the system (glibc; elsewhere nothing happens)."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
