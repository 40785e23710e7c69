"""Backward of convolutions and pooling."""

from __future__ import annotations

import math

import torch
from torch.autograd.graph import Node

from twophase_fast import ops
from twophase_fast.rules._saved import signed_tuple
from twophase_fast.rules.backward.arrival import Arrival, Rule, source_shape

CONVOLUTION = "ConvolutionBackward0"
_IMAGES = 4  # axes of a batch of images


def _convolution(arrival: Arrival) -> dict[int, torch.Tensor]:
    """Pull back, into memory where C++ writes; a GPU's library makes its own, and only adds to what is there."""
    if not arrival.slots:
        return {}
    node, held, g = arrival.node, arrival.sums.get(0), _images(arrival.g, arrival.shape)
    weight = node._saved_weight.detach()
    geometry = {name: signed_tuple(getattr(node, f"_saved_{name}")) for name in ("stride", "padding", "dilation")}
    options = {**geometry, "groups": node._saved_groups, "precision": arrival.precision}
    if held is None and not g.is_cpu:
        return {0: _blocks(arrival, ops.conv_input_grad(g, weight, arrival.source(0)[2:], **options))}
    out = held
    if out is None:
        out = arrival.g if arrival.owned and overwrites(node) else arrival.empty(0)
    ops.conv_input_grad_(_images(out, arrival.source(0)), g, weight, add=held is not None, **options)
    return {0: out}


def overwrites(node: Node) -> bool:
    """Return whether a convolution's result can take the place of its cotangents: the kernels of 3x3 on a CPU."""
    weight, metadata = node._saved_weight, node._input_metadata[0]
    same = source_shape(node, 0) == tuple(metadata.shape)
    return same and weight.is_cpu and weight.shape[2:] == (3, 3) and node._saved_groups == 1


def _max_pool(arrival: Arrival) -> dict[int, torch.Tensor]:
    node, g = arrival.node, arrival.g
    chosen = arrival.blocks.cut(node._saved_result1).unsqueeze(1).expand(g.shape).contiguous()
    sizes = [signed_tuple(v) for v in (node._saved_kernel_size, node._saved_stride, node._saved_padding)]
    images = _images(g, arrival.shape)
    pooled = torch.ops.aten.max_pool2d_with_indices_backward(
        images,
        _like(arrival, len(images)),
        *sizes,
        signed_tuple(node._saved_dilation),
        node._saved_ceil_mode,
        _images(chosen, arrival.shape),
    )
    return {0: _blocks(arrival, pooled)}


def _average_pool(arrival: Arrival) -> dict[int, torch.Tensor]:
    node = arrival.node
    sizes = [signed_tuple(v) for v in (node._saved_kernel_size, node._saved_stride, node._saved_padding)]
    options = (node._saved_ceil_mode, node._saved_count_include_pad, node._saved_divisor_override)
    images = _images(arrival.g, arrival.shape)
    pooled = torch.ops.aten.avg_pool2d_backward(images, _like(arrival, len(images)), *sizes, *options)
    return {0: _blocks(arrival, pooled)}


def _images(rows: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return cotangents [B, K, *rest] as images [.., *shape[1:]]."""
    return rows.view(-1, *shape[1:])


def _like(arrival: Arrival, count: int) -> torch.Tensor:
    """Return an input of which only the shape is read (a GPU's kernels want it contiguous, and would copy it)."""
    shape = (count, *arrival.source(0)[1:])
    return arrival.g.new_empty(()).expand(shape) if arrival.g.is_cpu else arrival.g.new_empty(shape)


def _blocks(arrival: Arrival, images: torch.Tensor) -> torch.Tensor:
    """Return images as cotangents [B, K, *rest]."""
    shape = arrival.source(0)
    middle = (shape[0] // arrival.blocks.count,) if arrival.merged else ()
    return images.view(*arrival.g.shape[:2], *middle, *shape[1:])


def _convolves(node: Node, slots: tuple[int, ...]) -> bool:
    return set(slots) <= {0} and not node._saved_transposed and len(node._input_metadata[0].shape) in (3, 4)


def _is_batch(node: Node, slots: tuple[int, ...]) -> bool:
    return len(node._input_metadata[0].shape) == _IMAGES


def _averages(node: Node, slots: tuple[int, ...]) -> bool:
    axes, dims = node._saved_dim, len(node._saved_self_sym_sizes)
    return bool(axes) and all(axis % dims for axis in signed_tuple(axes))


def _mean(arrival: Arrival) -> dict[int, torch.Tensor]:
    """Mean over axes other than the first, kept or not."""
    g, count = _spread(arrival)
    return {0: (g / count).expand(arrival.empty(0).shape).contiguous()}


def _sum(arrival: Arrival) -> dict[int, torch.Tensor]:
    """Sum over axes other than the first, kept or not."""
    g, _ = _spread(arrival)
    return {0: g.expand(arrival.empty(0).shape).contiguous()}


def _spread(arrival: Arrival) -> tuple[torch.Tensor, int]:
    """Return the cotangents with the axes that were summed over put back (of size one), and the entries summed."""
    node, g, shape = arrival.node, arrival.g, arrival.source(0)
    dims = len(shape)
    axes = sorted(axis % dims for axis in signed_tuple(node._saved_dim))
    for axis in () if node._saved_keepdim else axes:
        g = g.unsqueeze(arrival.axis(axis, dims))
    return g, math.prod(shape[axis] for axis in axes)


RULES = {
    CONVOLUTION: Rule(_convolution, _convolves),
    "AvgPool2DBackward0": Rule(_average_pool, _is_batch),
    "MaxPool2DWithIndicesBackward0": Rule(_max_pool, _is_batch),
    "MeanBackward1": Rule(_mean, _averages, strided=True),
    "SumBackward1": Rule(_sum, _averages, strided=True),
}
