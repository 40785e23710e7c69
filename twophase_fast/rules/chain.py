"""From a derived tensor back to its parameters: W.t(), slices, weight normalisation, position tables.

A tensor computed from parameters alone has a Jacobian of its own; rows of the slot's Jacobian are multiplied by it
with one batched pull-back through that small piece of graph. A plain 2-D transpose only swaps roles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch.autograd.graph import GradientEdge, Node

from twophase_fast.rules.factors import Dense, Factor, Outer

_ACCUMULATE = "torch::autograd::AccumulateGrad"


def chain(factor: Factor, source: tuple[Node, int], leaves: Mapping[str, torch.Tensor]) -> dict[str, Factor]:
    """Return parameter name -> factor for the slot fed by output `source` = (node, index).

    `leaves` are the selected parameters the source is computed from.
    """
    node, _ = source
    if node.name() == _ACCUMULATE:
        (name,) = leaves
        return {name: factor}
    if node.name() == "TBackward0" and isinstance(factor, Outer) and _is_leaf(node):
        (name,) = leaves
        swapped = torch.Size(reversed(factor.shape))
        return {name: replace(factor, shape=swapped, transposed=not factor.transposed)}
    return _pull_back(factor, source, leaves)


def _is_leaf(node: Node) -> bool:
    upstream = node.next_functions[0][0]
    return upstream is not None and upstream.name() == _ACCUMULATE


def _pull_back(factor: Factor, source: tuple[Node, int], leaves: Mapping[str, torch.Tensor]) -> dict[str, Factor]:
    """Multiply every row by the derived tensor's Jacobian, in that tensor's dtype."""
    node, index = source
    jacobian = factor.dense().to(node._input_metadata[index].dtype)
    n, c = jacobian.shape[:2]
    rows = torch.autograd.grad(
        [GradientEdge(node, index)],
        list(leaves.values()),
        [jacobian.flatten(0, 1)],
        retain_graph=True,
        allow_unused=True,
        is_grads_batched=True,
    )
    return {name: Dense(row.reshape(n, c, *row.shape[1:])) for name, row in zip(leaves, rows) if row is not None}
