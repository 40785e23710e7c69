"""Backward of element-wise nodes, and of softmax."""

from __future__ import annotations

import torch
from torch.autograd.graph import GradientEdge, Node

from twophase_fast import ops
from twophase_fast._pages import room
from twophase_fast.rules._saved import signed
from twophase_fast.rules.backward.arrival import Arrival, Blocks, Rule, repeated, same_shapes

RELU = "ReluBackward0"
SUMS = frozenset({"AddBackward0", "AddBackward1", "SubBackward0", "SubBackward1"})
_FUNCTIONS = (
    *("Abs", "Celu", "Clamp", "ClampMax", "ClampMin", "Cos", "Elu", "Erf", "Exp", "Gelu", "Hardsigmoid", "Hardswish"),
    *(
        "Hardtanh",
        "LeakyRelu",
        "Log",
        "LogSigmoid",
        "MaskedFill",
        "Mish",
        "Pow",
        "PreluKernel",
        "Reciprocal",
        "Rsqrt",
        "Sigmoid",
    ),
    *("Silu", "Sin", "Softplus", "Sqrt", "Square", "Tanh", "Threshold"),
)


def derivative(node: Node, blocks: Blocks) -> torch.Tensor:
    """Return the derivative [B, *rest] of an element-wise function of one tensor: what torch makes of ones."""
    meta, (source, j) = node._input_metadata[0], node.next_functions[0]
    ones = torch.ones(meta.shape, dtype=meta.dtype, device=meta.device)
    (found,) = torch.autograd.grad([GradientEdge(node, 0)], [GradientEdge(source, j)], [ones], retain_graph=True)
    return blocks.cut(found.detach())


def _function(arrival: Arrival) -> dict[int, torch.Tensor]:
    factor = derivative(arrival.node, arrival.blocks).unsqueeze(1)
    return {0: torch.mul(arrival.g, factor, out=arrival.own())}


def _relu(arrival: Arrival) -> dict[int, torch.Tensor]:
    g = arrival.own()
    if g is not arrival.g:
        g.copy_(arrival.g)
    ops.relu_grad_(g, arrival.blocks.cut(arrival.node._saved_result.detach().contiguous()))
    return {0: g}


def _negate(arrival: Arrival) -> dict[int, torch.Tensor]:
    return {0: torch.neg(arrival.g, out=arrival.own())}


def _add(arrival: Arrival) -> dict[int, torch.Tensor]:
    return _sum(arrival, arrival.node._saved_alpha)


def _subtract(arrival: Arrival) -> dict[int, torch.Tensor]:
    return _sum(arrival, -arrival.node._saved_alpha)


def _sum(arrival: Arrival, scale: float) -> dict[int, torch.Tensor]:
    """Return the backward of a + scale b."""
    scaled = {slot: arrival.g * scale if slot == 1 and scale != 1 else arrival.g for slot in arrival.slots}
    return {slot: arrival.reduced(g, slot) for slot, g in scaled.items()}


def _multiply(arrival: Arrival) -> dict[int, torch.Tensor]:
    others = {0: "_saved_other", 1: "_saved_self"}
    factors = {slot: arrival.beside(getattr(arrival.node, others[slot])) for slot in arrival.slots}
    products = {slot: torch.mul(arrival.g, factor, out=_room(arrival)) for slot, factor in factors.items()}
    return {slot: arrival.reduced(product, slot) for slot, product in products.items()}


def _divide(arrival: Arrival) -> dict[int, torch.Tensor]:
    quotient = torch.div(arrival.g, arrival.beside(arrival.node._saved_other), out=_room(arrival))
    return {0: arrival.reduced(quotient, 0)}


def _where(arrival: Arrival) -> dict[int, torch.Tensor]:
    chosen = arrival.beside(arrival.node._saved_condition)
    kept = {slot: torch.mul(arrival.g, ~chosen if slot else chosen, out=_room(arrival)) for slot in arrival.slots}
    return {slot: arrival.reduced(g, slot) for slot, g in kept.items()}


def _room(arrival: Arrival) -> torch.Tensor:
    """Return room for a result: what arrived where nothing reads it any more."""
    return arrival.own() if len(arrival.slots) == 1 else room(arrival.g.shape, arrival.g.dtype, arrival.g.device)


def _same(arrival: Arrival) -> dict[int, torch.Tensor]:
    return {0: arrival.g}


def _softmax(arrival: Arrival) -> dict[int, torch.Tensor]:
    y, axis = _result(arrival)
    products = torch.mul(arrival.g, y, out=_room(arrival))
    return {0: products.addcmul_(y, products.sum(axis, keepdim=True), value=-1)}


def _log_softmax(arrival: Arrival) -> dict[int, torch.Tensor]:
    y, axis = _result(arrival)
    total = arrival.g.sum(axis, keepdim=True)
    return {0: torch.addcmul(arrival.g, y.exp(), total, value=-1, out=_room(arrival))}


def _result(arrival: Arrival) -> tuple[torch.Tensor, int]:
    """Return a softmax's result [B, 1, *rest] and its axis."""
    dims = len(arrival.shape)
    return arrival.beside(arrival.node._saved_result), arrival.axis(signed(arrival.node._saved_dim), dims)


def _not_over_samples(node: Node, slots: tuple[int, ...]) -> bool:
    return bool(signed(node._saved_dim) % len(node._input_metadata[0].shape))


def _of_one(node: Node, slots: tuple[int, ...]) -> bool:
    return set(slots) <= {0} and same_shapes(node, slots)


def _by_numerator(node: Node, slots: tuple[int, ...]) -> bool:
    return set(slots) <= {0} and repeated(node, slots)


RULES = {
    RELU: Rule(_relu),
    "NegBackward0": Rule(_negate),
    "AddBackward0": Rule(_add, repeated, strided=True),
    "AddBackward1": Rule(_same, _of_one, strided=True),
    "SubBackward0": Rule(_subtract, repeated, strided=True),
    "SubBackward1": Rule(_same, _of_one, strided=True),
    "MulBackward0": Rule(_multiply, repeated, strided=True),
    "DivBackward0": Rule(_divide, _by_numerator, strided=True),
    "WhereBackward0": Rule(_where, repeated, strided=True),
    "SoftmaxBackward0": Rule(_softmax, _not_over_samples, strided=True),
    "LogSoftmaxBackward0": Rule(_log_softmax, _not_over_samples, strided=True),
    **{f"{name}Backward0": Rule(_function, _of_one) for name in _FUNCTIONS},
}
