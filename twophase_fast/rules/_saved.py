"""Reading `_saved_*` fields of autograd nodes."""

from __future__ import annotations

from collections.abc import Iterable

from torch.autograd.graph import Node


def signed(value: int) -> int:
    """Return a saved integer; negative ones arrive as unsigned 64-bit values."""
    return value - 2**64 if value >= 2**63 else value


def signed_tuple(values: Iterable[int]) -> tuple[int, ...]:
    """Return saved integers as a tuple."""
    return tuple(signed(v) for v in values)


def epsilon(node: Node) -> float:
    """Return what a BatchNorm adds to the variance; cuDNN's and MIOpen's save it by another name."""
    return node._saved_eps if hasattr(node, "_saved_eps") else node._saved_epsilon
