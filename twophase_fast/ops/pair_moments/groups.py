"""The tensors of all runs that have one dtype, as tables that one launch reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from twophase_fast.ops._triton.tables import aligned, table
from twophase_fast.ops.pair_moments import config
from twophase_fast.ops.pair_moments.layout import in_one_order


@dataclass(frozen=True)
class Chunks:
    """Tensors of given lengths, cut into chunks.

    Attributes:
        length: Elements of a chunk; the last one of a tensor may be shorter.
        count: Number of chunks.
        map: [chunks, 2] tensor and first element of every chunk.
        lengths: [L] elements of every tensor.
        first: [L + 1] first chunk of every tensor, and the number of chunks.
    """

    length: int
    count: int
    map: torch.Tensor
    lengths: torch.Tensor
    first: torch.Tensor


@dataclass(frozen=True)
class Group:
    """Tensors of one dtype at some of the positions of all runs.

    Attributes:
        dtype: Element type.
        vectors: Per position the flat tensors of all runs; they must live until the launch.
        positions: Positions in a run, as a table.
        addresses: [runs, positions] addresses of all tensors, as a table.
        aligned: Whether all addresses are multiples of 16 bytes.
        chunks: How the tensors are cut.
    """

    dtype: torch.dtype
    vectors: list[list[torch.Tensor]]
    positions: torch.Tensor
    addresses: torch.Tensor
    aligned: bool
    chunks: Chunks

    @property
    def tensors(self) -> int:
        """Number of tensors per run."""
        return len(self.vectors)

    @property
    def elements(self) -> int:
        """Number of elements per run."""
        return sum(vectors[0].numel() for vectors in self.vectors)


def groups(positions: list[list[torch.Tensor]]) -> list[Group]:
    """Return the groups of positions; `positions[i]` holds the tensors of all runs at position i."""
    dtypes = list(dict.fromkeys(tensors[0].dtype for tensors in positions))
    return [_group(positions, [i for i, t in enumerate(positions) if t[0].dtype == dtype]) for dtype in dtypes]


def _group(positions: list[list[torch.Tensor]], chosen: Sequence[int]) -> Group:
    vectors = [in_one_order(positions[index]) for index in chosen]
    device = vectors[0][0].device
    addresses = [tensor.data_ptr() for run in zip(*vectors, strict=True) for tensor in run]
    lengths = tuple(tensors[0].numel() for tensors in vectors)
    return Group(
        dtype=vectors[0][0].dtype,
        vectors=vectors,
        positions=table(chosen, device),
        addresses=table(addresses, device),
        aligned=aligned(addresses),
        chunks=cut(lengths, config.chunk_length(sum(lengths), device), device),
    )


@lru_cache(maxsize=64)
def cut(lengths: tuple[int, ...], length: int, device: torch.device) -> Chunks:
    """Cut tensors of these lengths into chunks of `length` elements; an empty tensor has none."""
    counts = torch.tensor([-(-elements // length) for elements in lengths])
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    owner = torch.arange(len(lengths)).repeat_interleave(counts)
    start = (torch.arange(int(first[-1])) - first[owner]) * length
    columns = torch.stack([owner, start], dim=1)
    return Chunks(length, len(columns), columns.to(device), torch.tensor(lengths, device=device), first.to(device))
