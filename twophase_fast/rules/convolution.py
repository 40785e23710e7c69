"""Convolutions in one, two and three dimensions (cross-correlation, as torch defines it)."""

from __future__ import annotations

from twophase_fast.rules._registry import Use, rule
from twophase_fast.rules._saved import signed_tuple
from twophase_fast.rules.factors import Conv, Dense, Factor

_WEIGHT, _BIAS = 1, 2


@rule("ConvolutionBackward0")
def convolution(use: Use) -> Factor | None:
    """Weight and bias of a convolution that is not transposed; samples on axis 0, one entry each."""
    node = use.node
    if not use.layout.plain:
        return None
    g = use.g[:, :, 0, 0]  # [N, C, Cout, *out]
    if use.slot == _BIAS:
        return Dense(g.flatten(3).sum(3))
    if use.slot != _WEIGHT or node._saved_transposed or node._saved_input is None:
        return None
    return Conv(
        node._saved_input.detach(),
        g,
        tuple(use.shape[2:]),
        *map(signed_tuple, (node._saved_stride, node._saved_padding, node._saved_dilation)),
        groups=node._saved_groups,
    )
