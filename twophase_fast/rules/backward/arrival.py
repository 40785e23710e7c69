"""What a backward rule is given, and how tensors are cut into blocks.

Cotangents of all samples and outputs lie together, sorted by sample: a tensor [S, *others] whose first axis holds
B samples (S = B: one entry each; S = B T: T rows each) has cotangents [B, K, *rest], where the rest is `others`, or
T and `others`. A rule that treats the entries of the first axis alike needs not know which of the two it sees, nor
whether the blocks really are samples. Only a permutation's output may have its samples elsewhere: where they were
first before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.autograd.graph import Node

from twophase_fast._pages import room
from twophase_fast._types import Precision
from twophase_fast.rules._saved import signed, signed_tuple

PERMUTE, TRANSPOSE = "PermuteBackward0", "TransposeBackward0"


@dataclass(frozen=True)
class Arrival:
    """The cotangents at a node, and what may be done with them.

    Attributes:
        node: The node.
        gs: For every output the cotangents [B, K, *rest], or None: zero.
        owned: Whether nothing else reads the first of them, so that it may be overwritten.
        slots: The slots cotangents are wanted for.
        sums: Room [B, K, *rest] that holds cotangents from elsewhere, by slot; a result is added there.
        blocks: How every tensor whose samples come first is cut.
        precision: Of products and convolutions.
    """

    node: Node
    gs: tuple[torch.Tensor | None, ...]
    owned: bool
    slots: tuple[int, ...]
    sums: Mapping[int, torch.Tensor]
    blocks: Blocks
    precision: Precision = "highest"

    @property
    def g(self) -> torch.Tensor:
        """The cotangents at the only output."""
        return self.gs[0]

    @property
    def merged(self) -> int:
        """1 where the first axis holds several entries of a block, which is then an axis of its own; 0 otherwise."""
        return int(self.shape[0] != self.blocks.count)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the node's first output."""
        return tuple(self.node._input_metadata[0].shape)

    def source(self, slot: int) -> tuple[int, ...]:
        """Return the shape of the tensor in a slot."""
        return source_shape(self.node, slot)

    def axis(self, dim: int, dims: int) -> int:
        """Return the axis of [B, K, *rest] that an axis (other than the first one) of a tensor of `dims` axes is."""
        return dim % dims + 1 + self.merged

    def empty(self, slot: int) -> torch.Tensor:
        """Return room for the cotangents of a slot."""
        first = next(g for g in self.gs if g is not None)
        source = self.node.next_functions[slot][0]
        blocks = blocks_of(source, self.blocks.count)
        shape = (*first.shape[:2], *blocks.rest(self.source(slot)))
        if source.name() not in (PERMUTE, TRANSPOSE):
            return room(shape, first.dtype, first.device)
        axes = way_back(source, blocks.count)  # in the order in which the permutation's own input will want them
        inverse = [axes.index(k) for k in range(len(axes))]
        return room([shape[axis] for axis in axes], first.dtype, first.device).permute(inverse)

    def own(self) -> torch.Tensor:
        """Return room like `g` that may be written: `g` itself where nothing else reads it."""
        return self.g if self.owned else room(self.g.shape, self.g.dtype, self.g.device)

    def beside(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a saved tensor that broadcasts to the output's shape as one that broadcasts to [B, K, *rest]."""
        tensor = tensor.detach() if tensor.requires_grad else tensor  # a number stays one
        if tensor.dim() < len(self.shape):
            return tensor
        return tensor[0] if tensor.shape[0] == 1 else self.blocks.cut(tensor).unsqueeze(1)

    def reduced(self, rows: torch.Tensor, slot: int) -> torch.Tensor:
        """Return cotangents of the output's shape, summed over the axes along which the slot's tensor was repeated."""
        source, shape = self.source(slot), self.shape
        wide = [self.axis(d, len(shape)) for d in range(1, len(shape)) if source[d] != shape[d]]
        return rows.sum(wide, keepdim=True) if wide else rows


Run = Callable[[Arrival], dict[int, torch.Tensor]]
Accepts = Callable[[Node, tuple[int, ...]], bool]


@dataclass(frozen=True)
class Rule:
    """How a kind of node is run.

    Attributes:
        run: Returns slot -> cotangents [B, K, *rest] at the node's inputs; a result may be a cotangent that arrived, a
            view of it, or one of `sums`.
        accepts: Whether a node of this kind, with cotangents wanted for some slots, is run.
        strided: Whether cotangents may lie in memory in any order; otherwise they are contiguous.
    """

    run: Run
    accepts: Accepts = lambda node, slots: True
    strided: bool = False


@dataclass(frozen=True)
class Blocks:
    """How a tensor is cut: into `count` equal blocks along the axis `at` (the first, or one of exactly that size)."""

    count: int
    at: int = 0

    def fit(self, shape: Sequence[int]) -> bool:
        """Return whether a tensor can be cut so."""
        if self.at:
            return shape[self.at] == self.count
        return bool(shape) and shape[0] > 0 and shape[0] % self.count == 0

    def rest(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of a block; an axis of one entry goes away."""
        if not shape or shape[self.at] == self.count:
            return (*shape[: self.at], *shape[self.at + 1 :])
        return (shape[0] // self.count, *shape[1:])

    def cut(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the view [B, *rest] of a tensor."""
        if self.at or (tensor.dim() and tensor.shape[0] == self.count):
            return tensor.movedim(self.at, 0)
        return tensor.unflatten(0, (self.count, -1)) if tensor.dim() else tensor.unsqueeze(0)

    def cut_each(self, tensors: torch.Tensor) -> torch.Tensor:
        """Return the view [B, K, *rest] of K tensors [K, *shape]."""
        if self.at or (tensors.dim() > 1 and tensors.shape[1] == self.count):
            return tensors.movedim(1 + self.at, 0)
        split = tensors.unflatten(1, (self.count, -1)) if tensors.dim() > 1 else tensors.unsqueeze(1)
        return split.movedim(1, 0)

    def join_each(self, rows: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Return [B, K, *rest] as [K, *shape]."""
        if self.at:
            return rows.movedim(0, self.at + 1)
        return rows.movedim(0, 1).reshape(rows.shape[1], *shape)


def blocks_of(node: Node, count: int) -> Blocks:
    """Return how a node's outputs are cut: along the first axis, or where a permutation has put its input's."""
    if node.name() == PERMUTE:
        return Blocks(count, [d % len(node._saved_dims) for d in signed_tuple(node._saved_dims)].index(0))
    if node.name() == TRANSPOSE:
        dims = len(node._input_metadata[0].shape)
        swapped = {signed(dim) % dims for dim in (node._saved_dim0, node._saved_dim1)}
        return Blocks(count, max(swapped) if 0 in swapped else 0)
    return Blocks(count)


def way_back(node: Node, count: int) -> list[int]:
    """Return the axes of a permutation's cotangents [B, K, *rest] in the order of its input's."""
    shape = tuple(node._input_metadata[0].shape)
    dims = list(range(len(shape)))
    if node.name() == TRANSPOSE:
        a, b = (signed(d) for d in (node._saved_dim0, node._saved_dim1))
        dims[a], dims[b] = dims[b], dims[a]
    else:
        dims = [d % len(dims) for d in signed_tuple(node._saved_dims)]
    at = dims.index(0)
    axes = [k + 2 - int(k > at) for k in (dims.index(d) for d in range(1, len(dims)))]
    merged = not at and shape[0] != count
    return [0, 1, 2, *(axis + 1 for axis in axes)] if merged else [0, 1, *axes]


def source_shape(node: Node, slot: int) -> tuple[int, ...]:
    """Return the shape of the tensor in a slot."""
    source, j = node.next_functions[slot]
    return tuple(source._input_metadata[j].shape)


def same_shapes(node: Node, slots: tuple[int, ...]) -> bool:
    """Return whether the wanted inputs have the output's shape."""
    return all(source_shape(node, slot) == tuple(node._input_metadata[0].shape) for slot in slots)


def repeated(node: Node, slots: tuple[int, ...]) -> bool:
    """Return whether the wanted inputs have the output's shape, or are repeated along axes other than the first."""
    shape = tuple(node._input_metadata[0].shape)
    sources = [source_shape(node, slot) for slot in slots]
    return all(len(source) == len(shape) and source[0] == shape[0] for source in sources)
