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
    arity = len(use.node._input_metadata)
    masked = {
        j: torch.zeros_like(use.layouts[j].from_samples(g[:, 0]), memory_format=torch.contiguous_format)
        for j, g in use.cotangents.items()
    }
    for i in range(n):
        for k in range(c):
            for j, g in use.cotangents.items():
                use.layouts[j].by_sample(masked[j])[i] = g[i, k]
            arguments = [masked.get(j) for j in range(arity)]
            returned = use.node(*arguments)
            grad = returned[use.slot] if isinstance(returned, tuple) else returned
            if grad is not None:
                jacobian[i, k] = grad.sum_to_size(use.shape)
        for j in masked:
            use.layouts[j].by_sample(masked[j])[i] = 0
    return Dense(jacobian)
