"""Element-wise nodes with broadcasting: additions, products, and the reduction they share."""

from __future__ import annotations

import torch

from twophase_fast.rules._registry import Use, rule
from twophase_fast.rules.factors import Dense, Factor


def reduce_to_slot(use: Use, product: torch.Tensor) -> Factor | None:
    """Sum `product` [N, C, *before, outer, inner, *after] over every axis along which the slot was broadcast.

    Returns None where the slot has an entry per sample position (its sample axis is not of size 1).
    """
    axis = use.layout.axis
    rank = product.dim() - 3
    aligned = [1] * (rank - len(use.shape)) + list(use.shape)
    if len(use.shape) > rank or aligned[axis] != 1:
        return None
    split = [*aligned[:axis], 1, 1, *aligned[axis + 1 :]]
    summed = [k + 2 for k, size in enumerate(split) if size == 1]
    alone = product.untyped_storage().nbytes() == product.nbytes  # else more would be kept alive
    if not alone or any(product.shape[k] != 1 for k in summed):
        product = product.sum(summed)
    return Dense(product.reshape(*product.shape[:2], *use.shape))


def _operand(use: Use, tensor: torch.Tensor) -> torch.Tensor:
    """Return the other operand, broadcast to the node's output and sorted by sample, with a class axis."""
    shape = use.node._input_metadata[0].shape
    return use.layout.by_sample(tensor.detach().expand(shape)).unsqueeze(1)


@rule("AddBackward0")
def add(use: Use) -> Factor | None:
    """Sum: z = x + alpha * y."""
    scale = use.node._saved_alpha if use.slot == 1 else 1
    return reduce_to_slot(use, use.g if scale == 1 else use.g * scale)


@rule("SubBackward0")
def sub(use: Use) -> Factor | None:
    """Difference: z = x - alpha * y."""
    return reduce_to_slot(use, use.g * -use.node._saved_alpha if use.slot == 1 else use.g)


@rule("MulBackward0")
def mul(use: Use) -> Factor | None:
    """Product: z = x * y."""
    other = use.node._saved_other if use.slot == 0 else use.node._saved_self
    if other is None or not torch.is_tensor(other):
        return None
    return reduce_to_slot(use, use.g * _operand(use, other))


@rule("DivBackward0")
def div(use: Use) -> Factor | None:
    """Quotient: z = x / y with the parameter above the bar."""
    if use.slot != 0 or not torch.is_tensor(use.node._saved_other):
        return None
    return reduce_to_slot(use, use.g / _operand(use, use.node._saved_other))
