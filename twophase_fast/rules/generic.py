"""The exact fallback: one autograd node, called on cotangents masked to one sample and one output.

    J[n, c] = node(cotangent of output c, zero outside sample n)[slot]

The node's backward is linear in its cotangent and uses only what it saved, so this is exact whatever the node
computes. It costs N * C calls of that one node.
"""

from __future__ import annotations

import torch

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
    with torch.no_grad():
        returned = use.node(*arguments)
    return returned[use.slot] if isinstance(returned, tuple) else returned
