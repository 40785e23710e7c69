"""Backward of single nodes for several cotangents at once.

torch's engine pulls one cotangent back at a time, through every node a call. Where images flow, most of that is
convolutions, normalisations in evaluation mode and element-wise nodes, whose backward needs no more than what the node
has saved. The functions here pull all cotangents of all samples back in one call: [B, K, *shape], where the node's
output has the shape [B, *shape].

| node | backward |
|---|---|
| convolution | `ops.conv_input_grad_` |
| batch normalisation in evaluation mode | `ops.batch_norm_grad`, with the ReLU that follows it and both parameters |
| ReLU | `ops.relu_grad_` |
| other element-wise functions | product with the derivative, which torch gives for one cotangent of ones |
| addition | the cotangent itself |
| pooling | torch's own, for B K images |

`supports` says whether a node is one of these; a node it does not know goes through torch's engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, Node

from twophase_fast import ops
from twophase_fast._pages import room
from twophase_fast._types import Precision
from twophase_fast.rules._saved import signed_tuple

CONVOLUTION, NORM, RELU = "ConvolutionBackward0", "NativeBatchNormBackward0", "ReluBackward0"
_ELEMENTWISE = frozenset(
    f"{name}Backward0"
    for name in (
        *("Elu", "Gelu", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyRelu", "Mish", "Neg"),
        *("Sigmoid", "Silu", "Softplus", "Tanh"),
    )
)
_POOLING = ("AvgPool2DBackward0", "MaxPool2DWithIndicesBackward0")
_IMAGES = 4  # axes of a batch of images
_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Arrival:
    """The cotangents [B, K, *shape] at a node, and what may be done with them.

    Attributes:
        node: The node.
        g: The cotangents, contiguous.
        owned: Whether nothing else reads `g`, so that it may be overwritten.
        slots: The slots cotangents are wanted for.
        sums: Room [B, K, *shape] that holds cotangents from elsewhere, by slot; a result is added there.
        precision: Of convolutions.
    """

    node: Node
    g: torch.Tensor
    owned: bool
    slots: tuple[int, ...]
    sums: Mapping[int, torch.Tensor]
    precision: Precision = "highest"


Backward = Callable[[Arrival], dict[int, torch.Tensor]]


def supports(node: Node, slots: tuple[int, ...]) -> bool:
    """Return whether `backward` knows this node, where cotangents are wanted for `slots`."""
    shapes = [node._input_metadata[0], *(_source(node, slot) for slot in slots)]
    if any(meta.dtype not in _DTYPES or meta.dtype != shapes[0].dtype for meta in shapes):
        return False
    if any(not meta.shape for meta in shapes) or any(meta.shape[0] != shapes[0].shape[0] for meta in shapes):
        return False
    name = node.name()
    if name == CONVOLUTION:
        return set(slots) <= {0} and not node._saved_transposed and len(shapes[0].shape) in (3, 4)
    if name == NORM:
        return set(slots) <= {0} and not node._saved_training and node._saved_running_mean is not None
    if name == "AddBackward0":
        return all(meta.shape == shapes[0].shape for meta in shapes)
    if name == "MeanBackward1":
        axes = node._saved_dim
        return bool(axes) and all(axis % len(node._saved_self_sym_sizes) for axis in signed_tuple(axes))
    if name in _POOLING:
        return len(shapes[0].shape) == _IMAGES
    return name == RELU or name in _ELEMENTWISE


def backward(arrival: Arrival) -> dict[int, torch.Tensor]:
    """Return slot -> cotangents [B, K, *shape] at the node's inputs; a result may be `g` or one of `sums` itself."""
    name = arrival.node.name()
    return (_elementwise if name in _ELEMENTWISE else _BACKWARD[name])(arrival)


@dataclass(frozen=True)
class NormGrads:
    """What comes out of a normalisation: cotangents at its input (None if nobody wants them) and parameter gradients.

    Attributes:
        input: [B, K, channels, *spatial].
        weight: [B, K, channels].
        bias: [B, K, channels].
    """

    input: torch.Tensor | None
    weight: torch.Tensor
    bias: torch.Tensor


def norm_backward(arrival: Arrival, relu: Node | None) -> NormGrads:
    """Return the backward of a normalisation in evaluation mode, after that of the ReLU that follows it, if any.

    `arrival.node` is the normalisation; the cotangents are those at the ReLU's output where there is one.
    """
    node, g = arrival.node, arrival.g
    mean, variance = node._saved_running_mean, node._saved_running_var
    weight = None if node._saved_weight is None else node._saved_weight.detach()
    out = g if arrival.owned else room(g.shape, g.dtype, g.device)
    x = node._saved_input.detach().contiguous()
    result = None if relu is None else relu._saved_result.detach().contiguous()
    rstd = (variance + node._saved_eps).rsqrt()
    _, weight_grad, bias_grad = ops.batch_norm_grad(g, x, mean, rstd, weight, relu=result, out=out)
    return NormGrads(out if arrival.slots else None, weight_grad, bias_grad)


def _convolution(arrival: Arrival) -> dict[int, torch.Tensor]:
    if not arrival.slots:
        return {}
    node, g, held = arrival.node, arrival.g, arrival.sums.get(0)
    shape = (*g.shape[:2], *_source(node, 0).shape[1:])
    out = room(shape, g.dtype, g.device) if held is None else held
    ops.conv_input_grad_(
        out.flatten(0, 1),
        g.flatten(0, 1),
        node._saved_weight.detach(),
        stride=signed_tuple(node._saved_stride),
        padding=signed_tuple(node._saved_padding),
        dilation=signed_tuple(node._saved_dilation),
        groups=node._saved_groups,
        add=held is not None,
        precision=arrival.precision,
    )
    return {0: out}


def _relu(arrival: Arrival) -> dict[int, torch.Tensor]:
    g = arrival.g if arrival.owned else room(arrival.g.shape, arrival.g.dtype, arrival.g.device).copy_(arrival.g)
    ops.relu_grad_(g, arrival.node._saved_result.detach().contiguous())
    return {0: g}


def _elementwise(arrival: Arrival) -> dict[int, torch.Tensor]:
    meta = arrival.node._input_metadata[0]
    ones = torch.ones(meta.shape, dtype=meta.dtype, device=arrival.g.device)
    source = GradientEdge(*arrival.node.next_functions[0])
    (derivative,) = torch.autograd.grad([GradientEdge(arrival.node, 0)], [source], [ones], retain_graph=True)
    out = arrival.g if arrival.owned else room(arrival.g.shape, arrival.g.dtype, arrival.g.device)
    return {0: torch.mul(arrival.g, derivative.detach().unsqueeze(1), out=out)}


def _add(arrival: Arrival) -> dict[int, torch.Tensor]:
    scale = arrival.node._saved_alpha
    return {slot: arrival.g * scale if slot == 1 and scale != 1 else arrival.g for slot in arrival.slots}


def _max_pool(arrival: Arrival) -> dict[int, torch.Tensor]:
    node, g = arrival.node, arrival.g
    images, shape = g.flatten(0, 1), _source(node, 0).shape
    chosen = node._saved_result1.unsqueeze(1).expand(g.shape).flatten(0, 1).contiguous()
    sizes = [signed_tuple(v) for v in (node._saved_kernel_size, node._saved_stride, node._saved_padding)]
    like = g.new_empty(()).expand(len(images), *shape[1:])  # of the input only the shape is read
    pooled = torch.ops.aten.max_pool2d_with_indices_backward(
        images, like, *sizes, signed_tuple(node._saved_dilation), node._saved_ceil_mode, chosen
    )
    return {0: pooled.view(*g.shape[:2], *shape[1:])}


def _average_pool(arrival: Arrival) -> dict[int, torch.Tensor]:
    node, g = arrival.node, arrival.g
    images, shape = g.flatten(0, 1), _source(node, 0).shape
    sizes = [signed_tuple(v) for v in (node._saved_kernel_size, node._saved_stride, node._saved_padding)]
    options = (node._saved_ceil_mode, node._saved_count_include_pad, node._saved_divisor_override)
    like = g.new_empty(()).expand(len(images), *shape[1:])
    pooled = torch.ops.aten.avg_pool2d_backward(images, like, *sizes, *options)
    return {0: pooled.view(*g.shape[:2], *shape[1:])}


def _mean(arrival: Arrival) -> dict[int, torch.Tensor]:
    """Mean over axes other than the first, kept or not."""
    node, g = arrival.node, arrival.g
    shape = _source(node, 0).shape
    axes = sorted(axis % len(shape) for axis in signed_tuple(node._saved_dim))
    for axis in () if node._saved_keepdim else axes:
        g = g.unsqueeze(axis + 1)
    count = math.prod(shape[axis] for axis in axes)
    return {0: (g / count).expand(g.shape[0], g.shape[1], *shape[1:]).contiguous()}


def _source(node: Node, slot: int) -> Any:
    """Return the metadata (shape, dtype) of the tensor in a slot."""
    source, j = node.next_functions[slot]
    return source._input_metadata[j]


_BACKWARD: dict[str, Backward] = {
    CONVOLUTION: _convolution,
    RELU: _relu,
    "AddBackward0": _add,
    "AvgPool2DBackward0": _average_pool,
    "MaxPool2DWithIndicesBackward0": _max_pool,
    "MeanBackward1": _mean,
}
