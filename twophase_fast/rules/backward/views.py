"""Backward of nodes that only move entries: views, slices, joins."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.autograd.graph import Node

from twophase_fast.rules._saved import signed, signed_tuple
from twophase_fast.rules.backward.arrival import (
    PERMUTE,
    TRANSPOSE,
    Arrival,
    Rule,
    blocks_of,
    repeated,
    source_shape,
    way_back,
)


def _reshape(arrival: Arrival) -> dict[int, torch.Tensor]:
    """Shapes that hold the same entries in the same order hold the same blocks."""
    return {0: arrival.g.reshape(*arrival.g.shape[:2], *arrival.blocks.rest(arrival.source(0)))}


def _copy(arrival: Arrival) -> dict[int, torch.Tensor]:
    return {0: arrival.g}


def _permute(arrival: Arrival) -> dict[int, torch.Tensor]:
    """Put the axes of the rest back; the samples may have been anywhere."""
    return {0: arrival.g.permute(way_back(arrival.node, arrival.blocks.count))}


def _expand(arrival: Arrival) -> dict[int, torch.Tensor]:
    return {0: arrival.reduced(arrival.g, 0)}


def _select(arrival: Arrival) -> dict[int, torch.Tensor]:
    axis = _off(arrival)
    return _into(arrival, lambda out: out.select(axis, signed(arrival.node._saved_index)))


def _slice(arrival: Arrival) -> dict[int, torch.Tensor]:
    node, shape = arrival.node, arrival.source(0)
    dim = signed(node._saved_dim) % len(shape)
    first, last, step = slice(signed(node._saved_start), signed(node._saved_end), node._saved_step).indices(shape[dim])
    where = [slice(None)] * (arrival.axis(dim, len(shape))) + [slice(first, last, step)]
    return _into(arrival, lambda out: out[tuple(where)])


def _into(arrival: Arrival, part: Callable[[torch.Tensor], torch.Tensor]) -> dict[int, torch.Tensor]:
    """Put the cotangents into a part of the source, zero elsewhere, or add them there."""
    held = arrival.sums.get(0)
    if held is not None:
        part(held).add_(arrival.g)
        return {0: held}
    out = arrival.empty(0).zero_()
    part(out).copy_(arrival.g)
    return {0: out}


def _unbind(arrival: Arrival) -> dict[int, torch.Tensor]:
    out = arrival.empty(0)
    for part, g in zip(out.unbind(_off(arrival)), arrival.gs):
        part.zero_() if g is None else part.copy_(g)
    return {0: out}


def _off(arrival: Arrival) -> int:
    """Return the axis of [B, K, *rest] that a node has taken off its source; before the samples it is the third."""
    shape = arrival.source(0)
    dim = signed(arrival.node._saved_dim) % len(shape)
    return arrival.axis(dim, len(shape)) if dim else 2


def _stack(arrival: Arrival) -> dict[int, torch.Tensor]:
    parts = arrival.g.unbind(arrival.axis(signed(arrival.node._saved_dim), len(arrival.shape)))
    return {slot: parts[slot] for slot in arrival.slots}


def _pad(arrival: Arrival) -> dict[int, torch.Tensor]:
    g, pads = arrival.g, signed_tuple(arrival.node._saved_pad)
    for k in range(0, len(pads), 2):
        axis = g.dim() - 1 - k // 2
        g = g.narrow(axis, pads[k], g.shape[axis] - pads[k] - pads[k + 1])
    return {0: g}


def _split(arrival: Arrival) -> dict[int, torch.Tensor]:
    dim = signed(arrival.node._saved_dim) % len(arrival.shape)
    axis, out = arrival.axis(dim, len(arrival.shape)), arrival.empty(0)
    sizes = [meta.shape[dim] for meta in arrival.node._input_metadata]
    for part, g in zip(out.split(sizes, axis), arrival.gs):
        part.zero_() if g is None else part.copy_(g)
    return {0: out}


def _cat(arrival: Arrival) -> dict[int, torch.Tensor]:
    node = arrival.node
    dim = signed(node._saved_dim) % len(arrival.shape)
    known = {k: source_shape(node, k)[dim] for k, (source, _) in enumerate(node.next_functions) if source is not None}
    other = arrival.shape[dim] - sum(known.values())  # of the only part without a gradient, if there is one
    sizes = [known.get(k, other) for k in range(len(node.next_functions))]
    parts = arrival.g.split(sizes, arrival.axis(dim, len(arrival.shape)))
    return {slot: parts[slot] for slot in arrival.slots}


def _takes_off(node: Node, slots: tuple[int, ...]) -> bool:
    """Whether the axis taken off is not the first one, or lies before the samples."""
    at = blocks_of(node.next_functions[0][0], 1).at
    return at == 0 if signed(node._saved_dim) % len(source_shape(node, 0)) else at == 1


def _off_first(node: Node, slots: tuple[int, ...]) -> bool:
    return bool(signed(node._saved_dim) % len(node._input_metadata[0].shape))


def _pads_inside(node: Node, slots: tuple[int, ...]) -> bool:
    pads = signed_tuple(node._saved_pad)
    return min(pads, default=0) >= 0 and len(pads) // 2 < len(node._input_metadata[0].shape)


def _joins(node: Node, slots: tuple[int, ...]) -> bool:
    unknown = sum(source is None for source, _ in node.next_functions)
    return unknown <= 1 and bool(signed(node._saved_dim) % len(node._input_metadata[0].shape))


_RESHAPES = ("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Alias")

RULES = {
    **{f"{name}Backward{k}": Rule(_reshape, strided=True) for name in _RESHAPES for k in range(3)},
    "CloneBackward0": Rule(_copy, strided=True),
    PERMUTE: Rule(_permute, strided=True),
    TRANSPOSE: Rule(_permute, strided=True),
    "ExpandBackward0": Rule(_expand, repeated, strided=True),
    "SelectBackward0": Rule(_select, _takes_off, strided=True),
    "SliceBackward0": Rule(_slice, _off_first, strided=True),
    "UnbindBackward0": Rule(_unbind, _takes_off, strided=True),
    "SplitBackward0": Rule(_split, _off_first, strided=True),
    "SplitWithSizesBackward0": Rule(_split, _off_first, strided=True),
    "UnsafeSplitBackward0": Rule(_split, _off_first, strided=True),
    "CatBackward0": Rule(_cat, _joins, strided=True),
    "StackBackward0": Rule(_stack, _off_first, strided=True),
    "ConstantPadNdBackward0": Rule(_pad, _pads_inside, strided=True),
}
