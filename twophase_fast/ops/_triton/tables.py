"""Small tables of integers that kernels read: addresses of tensors, lengths, chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch

_KEPT = 64
_as_if: ContextVar[bool] = ContextVar("as_if_recorded", default=False)


def table(values: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return `values` as int64 on `device`.

    The last tables are kept, so that a call repeated on the same tensors copies nothing (and may be recorded in a CUDA
    graph). A new table is copied from pinned memory, without waiting, so that it is there for this stream alone.
    """
    return _table(tuple(values), device, current_stream(device))


def current_stream(device: torch.device) -> int:
    """Return a number for the stream that work on a device is put on now."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def is_recorded(device: torch.device) -> bool:
    """Return whether work on a device goes to a CUDA graph, which would read a new table's memory again at any time."""
    return _as_if.get() or (device.type == "cuda" and torch.cuda.is_current_stream_capturing())


@contextmanager
def as_if_recorded() -> Iterator[None]:
    """Launch inside what a CUDA graph would record: a rehearsal compiles everything before."""
    token = _as_if.set(True)
    try:
        yield
    finally:
        _as_if.reset(token)


@lru_cache(maxsize=_KEPT)
def _table(values: tuple[int, ...], device: torch.device, stream: int) -> torch.Tensor:
    on_host = torch.tensor(values, dtype=torch.int64, pin_memory=device.type == "cuda")
    return on_host.to(device, non_blocking=True)


def aligned(addresses: Sequence[int], multiple: int = 16) -> bool:
    """Return whether all addresses, in bytes, are multiples of `multiple`."""
    return all(address % multiple == 0 for address in addresses)
