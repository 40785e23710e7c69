"""Small tables of integers that kernels read: addresses of tensors, lengths, chunks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

_KEPT = 64


def table(values: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return `values` as int64 on `device`.

    The last tables are kept, so that a call repeated on the same tensors copies nothing (and may be recorded in a CUDA
    graph). A new table is copied from pinned memory, without waiting.
    """
    return _table(tuple(values), device)


@lru_cache(maxsize=_KEPT)
def _table(values: tuple[int, ...], device: torch.device) -> torch.Tensor:
    on_host = torch.tensor(values, dtype=torch.int64, pin_memory=device.type == "cuda")
    return on_host.to(device, non_blocking=True)


def aligned(addresses: Sequence[int], multiple: int = 16) -> bool:
    """Return whether all addresses, in bytes, are multiples of `multiple`."""
    return all(address % multiple == 0 for address in addresses)
