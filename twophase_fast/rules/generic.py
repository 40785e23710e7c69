"""The exact fallback: one autograd node, called on cotangents masked to one sample and one output.

    J[n, c] = node(cotangent of output c, zero outside sample n)[slot]

The node's backward is linear in its cotangent and uses only what it saved, so this is exact whatever the node
computes. It costs N * C calls of that one node. Functions written in Python cannot be called alone; torch's engine then
goes from the node to what feeds the slot.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.autograd.graph import GradientEdge, Node

from twophase_fast._types import UnsupportedModelError
from twophase_fast.rules._registry import Use
from twophase_fast.rules.factors import Dense


def generic(use: Use) -> Dense:
    """Return the materialised Jacobian of the slot, [N, C, *shape]."""
    first = next(iter(use.cotangents.values()))
    n, c = first.shape[:2]
    jacobian = first.new_zeros(n, c, *use.shape)
    for i in range(n):
        for k in range(c):
            grad = _one_row(use, i, k)
            if grad is not None:
                jacobian[i, k] = grad.sum_to_size(use.shape)
    return Dense(jacobian)


def _one_row(use: Use, n: int, c: int) -> torch.Tensor | None:
    """Return the node's gradient of the slot for output c of sample n."""
    outputs = use.node._input_metadata
    arguments: list[torch.Tensor | None] = [None] * len(outputs)
    for j, g in use.cotangents.items():
        arguments[j] = use.layouts[j].place(g[n, c], n, torch.Size(outputs[j].shape))
    if not callable(use.node):
        return _through_engine(use, arguments)
    with torch.no_grad():
        returned = use.node(*arguments)
    return returned[use.slot] if isinstance(returned, tuple) else returned


def _through_engine(use: Use, arguments: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Return the gradient of what feeds the slot, by torch's engine.

    Raises:
        UnsupportedModelError: It feeds the node on other ways, too, which the engine would count as well.
    """
    source, j = use.node.next_functions[use.slot]
    if source in _below([node for slot, (node, _) in enumerate(use.node.next_functions) if slot != use.slot]):
        raise UnsupportedModelError(
            f"{use.node.name()} is a function written in Python that reads a parameter in several ways (shared with an "
            "earlier layer?), which cannot be told apart; let forward() pass it a copy of that parameter (`w * 1`)"
        )
    given = {k: g for k, g in enumerate(arguments) if g is not None}
    roots = [GradientEdge(use.node, k) for k in given]
    ends = [GradientEdge(source, j)]
    return torch.autograd.grad(roots, ends, list(given.values()), retain_graph=True, allow_unused=True)[0]


def _below(nodes: Sequence[Node | None]) -> set[Node]:
    """Return these nodes and everything they are computed from."""
    pending = [node for node in nodes if node is not None]
    found = set(pending)
    while pending:
        for node, _ in pending.pop().next_functions:
            if node is not None and node not in found:
                found.add(node)
                pending.append(node)
    return found
