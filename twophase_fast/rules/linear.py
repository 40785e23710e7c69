"""Matrix products: z = x W^T + b as `addmm`, `mm` nodes.

For z_t = W a_t the Jacobian row is J_nc = sum_t g_nct a_nt^T, with a the other operand and g the cotangent at z.
"""

from __future__ import annotations

import torch

from twophase_fast.rules._registry import Use, rule
from twophase_fast.rules.elementwise import reduce_to_slot
from twophase_fast.rules.factors import Factor, Outer

_MATRIX_ROWS = 0


def _right_operand(use: Use, left: torch.Tensor, scale: float) -> Factor | None:
    """Slot W of z = A W with samples in the rows of A: J = sum_t a_t g_t^T, of shape [d, p]."""
    if use.layout.axis != _MATRIX_ROWS:
        return None
    g = use.rows()
    return Outer(use.saved_rows(left), g if scale == 1 else g * scale, use.shape, transposed=True)


@rule("AddmmBackward0")
def addmm(use: Use) -> Factor | None:
    """Affine map: z = beta * bias + alpha * A W: slots 0 (bias) and 2 (W)."""
    node = use.node
    if use.slot == 0:
        return reduce_to_slot(use, use.g if node._saved_beta == 1 else use.g * node._saved_beta)
    if use.slot == 2 and node._saved_mat1 is not None:
        return _right_operand(use, node._saved_mat1, node._saved_alpha)
    return None


@rule("MmBackward0")
def mm(use: Use) -> Factor | None:
    """Product: z = A W, slot 1 (W)."""
    if use.slot == 1 and use.node._saved_self is not None:
        return _right_operand(use, use.node._saved_self, 1)
    return None
