"""Where a node's inputs keep the samples, if its output is known to keep them in a `Layout`.

The backward of most nodes treats the samples of its output one by one wherever the sample axis is not one that the
node works along: a matrix product row by row, a softmax row by row, a convolution image by image. For these the layout
of the cotangent at an input follows from the layout at the output, the shapes, and the node's saved axes; no cotangent
has to be computed to find it. A node that is not listed here, or works along the sample axis, gives no answer.

| nodes | what must hold of the sample axis |
|---|---|
| element-wise, broadcast, `expand`, `repeat` | the input has it at full size, counted from the last axis |
| views | it stays whole: the flat index splits into (outer, N, inner) in both shapes |
| `softmax`, `cat`, reductions, selections and the like | it is not the axis they work along |
| convolution, pooling, resampling, attention | it comes before the axes they work along |
| matrix products | it is a row of the left operand, a column of the right one, or the batch axis of both |
| normalisations | it is not normalised over |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch.autograd.graph import Node

from twophase_fast.rules._saved import signed, signed_tuple
from twophase_fast.rules.layout import Layout

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Passage:
    """A node on the way of cotangents, seen from one of its outputs.

    Attributes:
        node: The node.
        layout: Where that output keeps the samples.
        shape: Shape of that output.
        sources: Slot -> shape, for the inputs that hold samples.
    """

    node: Node
    layout: Layout
    shape: Shape
    sources: Mapping[int, Shape]


def source_layout(passage: Passage, slot: int) -> Layout | None:
    """Return the layout of the cotangent at an input, or None where it is not known."""
    known = _RULES.get(passage.node.name())
    return None if known is None else known(passage, slot)


def _at(passage: Passage, slot: int, axis: int) -> Layout | None:
    """Return the layout with the sample axis at `axis` of an input, which must have the same size there."""
    source = passage.sources[slot]
    whole = 0 <= axis < len(source) and source[axis] == passage.shape[passage.layout.axis]
    return replace(passage.layout, axis=axis) if whole else None


def _element_wise(passage: Passage, slot: int) -> Layout | None:
    return _at(passage, slot, passage.layout.axis + len(passage.sources[slot]) - len(passage.shape))


def _view(passage: Passage, slot: int) -> Layout | None:
    """Find the axis whose entries contain the sample's digit of the flat index, [outer, N, inner]."""
    shape, source, layout = passage.shape, passage.sources[slot], passage.layout
    if math.prod(shape) != math.prod(source):
        return None
    samples = shape[layout.axis] // (layout.outer * layout.inner)
    before = math.prod(shape[: layout.axis]) * layout.outer
    after = math.prod(shape[layout.axis + 1 :]) * layout.inner
    for axis, size in enumerate(source):
        outer, over = divmod(before, math.prod(source[:axis]))
        inner, under = divmod(after, math.prod(source[axis + 1 :]))
        if not over and not under and size == outer * samples * inner:
            return Layout(axis, outer, inner)
    return None


def _transpose(passage: Passage, slot: int) -> Layout | None:
    axes = [signed(value) % len(passage.shape) for value in (passage.node._saved_dim0, passage.node._saved_dim1)]
    axis = passage.layout.axis
    return _at(passage, slot, axes[1 - axes.index(axis)] if axis in axes else axis)


def _matrix_transpose(passage: Passage, slot: int) -> Layout | None:
    return _at(passage, slot, len(passage.shape) - 1 - passage.layout.axis)


def _permute(passage: Passage, slot: int) -> Layout | None:
    return _at(passage, slot, signed(passage.node._saved_dims[passage.layout.axis]) % len(passage.shape))


def _along(passage: Passage, slot: int) -> Layout | None:
    """Works along one axis, which stays."""
    axis, rank = passage.layout.axis, len(passage.shape)
    if rank != len(passage.sources[slot]) or signed(passage.node._saved_dim) % rank == axis:
        return None
    return _at(passage, slot, axis)


def _select(passage: Passage, slot: int) -> Layout | None:
    """Takes one entry (or each) of an axis, which goes."""
    dim = signed(passage.node._saved_dim) % len(passage.sources[slot])
    return _at(passage, slot, passage.layout.axis + (dim <= passage.layout.axis))


def _stack(passage: Passage, slot: int) -> Layout | None:
    axis, dim = passage.layout.axis, signed(passage.node._saved_dim) % len(passage.shape)
    return None if dim == axis else _at(passage, slot, axis - (dim < axis))


def _part(passage: Passage, slot: int) -> Layout | None:
    """Takes a range of an axis: all of it where the size stays."""
    return _at(passage, slot, passage.layout.axis) if len(passage.sources[slot]) == len(passage.shape) else None


def _pad(passage: Passage, slot: int) -> Layout | None:
    pads = signed_tuple(passage.node._saved_pad)
    first = 2 * (len(passage.shape) - 1 - passage.layout.axis)
    return None if any(pads[first : first + 2]) else _part(passage, slot)


def _reduction(passage: Passage, slot: int) -> Layout | None:
    node, rank = passage.node, len(passage.sources[slot])
    dims = (node._saved_dim,) if isinstance(node._saved_dim, int) else node._saved_dim or ()  # none: over all
    reduced = {value % rank for value in signed_tuple(dims)}
    left = [axis for axis in range(rank) if node._saved_keepdim or axis not in reduced]
    axis = left[passage.layout.axis] if len(left) == len(passage.shape) else None
    return None if axis is None or axis in reduced or not reduced else _at(passage, slot, axis)


def _over_last(count: int) -> Callable[[Passage, int], Layout | None]:
    """Works along the last `count` axes of its first input."""

    def layout(passage: Passage, slot: int) -> Layout | None:
        before = slot == 0 and passage.layout.axis < len(passage.shape) - count
        return _part(passage, slot) if before else None

    return layout


def _layer_norm(passage: Passage, slot: int) -> Layout | None:
    return _over_last(len(passage.node._saved_normalized_shape))(passage, slot)


def _per_image(passage: Passage, slot: int) -> Layout | None:
    """Treats the entries of the first axis of its first input one by one."""
    return _at(passage, slot, 0) if slot == passage.layout.axis == 0 else None


def _batch_norm(passage: Passage, slot: int) -> Layout | None:
    """Over running statistics element-wise; else over all axes but the second, which scales and shifts have too."""
    axis = passage.layout.axis
    if slot:
        return _at(passage, slot, 0) if axis == 1 else None
    return None if passage.node._saved_training and axis != 1 else _at(passage, slot, axis)


def _attention(passage: Passage, slot: int) -> Layout | None:
    return _at(passage, slot, 0) if passage.layout.axis == 0 and slot in (0, 1, 2) else None


def _product(left: int, *, added: bool) -> Callable[[Passage, int], Layout | None]:
    """Matrix products with the left operand in slot `left` and the right one in the next; slot 0 may be added."""

    def layout(passage: Passage, slot: int) -> Layout | None:
        axis, rank = passage.layout.axis, len(passage.shape)
        if added and slot == 0:
            return _element_wise(passage, slot)
        other = {rank - 2: left, rank - 1: left + 1}.get(axis, slot)
        alone = other == slot and (axis < rank - 2 or len(passage.sources.keys() & {left, left + 1}) == 1)
        return _at(passage, slot, axis) if alone else None

    return layout


def _names(*names: str, suffix: str = "Backward0") -> tuple[str, ...]:
    return tuple(name + suffix for name in names)


_KINDS: dict[Callable[[Passage, int], Layout | None], tuple[str, ...]] = {
    _element_wise: (
        *_names("Abs", "Add", "Addcdiv", "Addcmul", "Alias", "Celu", "Clamp", "ClampMax", "ClampMin", "Clone", "Cos"),
        *_names("Div", "Elu", "Erf", "Exp", "Expand", "Gelu", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyRelu"),
        *_names("Lerp", "Log", "Log1P", "LogSigmoid", "MaskedFill", "Maximum", "Minimum", "Mish", "Mul", "Neg", "Pow"),
        *_names("PreluKernel", "Reciprocal", "Relu", "Repeat", "Rsqrt", "Sigmoid", "Silu", "Sin", "Softplus", "Sqrt"),
        *_names("Sub", "Tanh", "ToCopy", "Where"),
        *_names("Add", "Clamp", "Lerp", "MaskedFill", "Pow", "Rsub", "Sub", suffix="Backward1"),
        "PowBackward2",
    ),
    _view: (
        *_names("ReshapeAlias", "Squeeze", "UnsafeView", "Unsqueeze", "View"),
        "SqueezeBackward1",
        "SqueezeBackward2",
    ),
    _transpose: ("TransposeBackward0", "TransposeBackward1"),
    _matrix_transpose: _names("T"),
    _permute: _names("Permute"),
    _along: _names("Cat", "Cumsum", "Gather", "IndexSelect", "LogSoftmax", "Softmax"),
    _select: _names("Select", "Unbind"),
    _stack: _names("Stack"),
    _part: _names("Slice", "Split", "SplitWithSizes", "UnsafeSplit", "UnsafeSplitWithSizes"),
    _pad: _names("ConstantPadNd"),
    _reduction: (*_names("Amax", "Amin", "Logsumexp", "Max", "Min"), "MeanBackward1", "SumBackward1"),
    _over_last(2): _names(
        *("AdaptiveAvgPool2D", "AdaptiveMaxPool2D", "AvgPool2D", "MaxPool2DWithIndices", "ReflectionPad2D"),
        *("ReplicationPad2D", "Tril", "Triu", "UpsampleBicubic2D", "UpsampleBilinear2D", "UpsampleNearest2D"),
    ),
    _over_last(3): _names("PixelShuffle", "PixelUnshuffle"),
    _layer_norm: _names("NativeLayerNorm"),
    _batch_norm: _names("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"),
    _per_image: _names("Convolution", "NativeGroupNorm"),
    _attention: _names(
        *("ScaledDotProductFlashAttentionForCpu", "ScaledDotProductFlashAttention"),
        "ScaledDotProductEfficientAttention",
    ),
    _product(0, added=False): _names("Bmm", "Mm"),
    _product(1, added=True): _names("Addmm", "Baddbmm"),
}
_RULES = {name: rule for rule, names in _KINDS.items() for name in names}
