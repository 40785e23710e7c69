"""Affine parameters of normalisation layers: z = xhat * weight + bias."""

from __future__ import annotations

import torch

from twophase_fast.rules._registry import Use, rule
from twophase_fast.rules._saved import epsilon
from twophase_fast.rules.elementwise import reduce_to_slot
from twophase_fast.rules.factors import Dense, Factor

_WEIGHT, _BIAS = 1, 2


def _affine(use: Use, normalised: torch.Tensor | None) -> Factor | None:
    """Return sum_t g * xhat (weight) or sum_t g (bias) for parameters on the trailing axes."""
    if use.slot == _BIAS:
        return reduce_to_slot(use, use.g)
    if use.slot != _WEIGHT or normalised is None:
        return None
    return reduce_to_slot(use, use.g * use.layout.by_sample(normalised).unsqueeze(1))


@rule("NativeLayerNormBackward0")
def layer_norm(use: Use) -> Factor | None:
    """Normalise: xhat = (x - mean) * rstd over the trailing axes."""
    node = use.node
    if set(use.cotangents) != {0}:
        return None
    x, mean, rstd = (t.detach() for t in (node._saved_input, node._saved_result1, node._saved_result2))
    return _affine(use, (x - mean) * rstd)


def _per_channel(use: Use, normalised: torch.Tensor | None) -> Factor | None:
    """Return the factor of a weight or bias [channels], channels on axis 1 of [N, channels, *spatial]."""
    if not use.layout.plain or use.slot not in (_WEIGHT, _BIAS):
        return None
    g = use.g[:, :, 0, 0]  # [N, C, channels, *spatial]
    if use.slot == _WEIGHT:
        if normalised is None:
            return None
        g = g * normalised.unsqueeze(1)
    return Dense(g.flatten(3).sum(3) if g.dim() > 3 else g.contiguous())


@rule("NativeBatchNormBackward0", "CudnnBatchNormBackward0", "MiopenBatchNormBackward0")
def batch_norm(use: Use) -> Factor | None:
    """Normalise: xhat = (x - running_mean) / sqrt(running_var + eps): evaluation mode only."""
    node = use.node
    if node._saved_training or node._saved_running_mean is None:
        return None
    x = node._saved_input.detach()
    view = [1, -1] + [1] * (x.dim() - 2)
    rstd = (node._saved_running_var + epsilon(node)).rsqrt()
    return _per_channel(use, (x - node._saved_running_mean.view(view)) * rstd.view(view))


@rule("NativeGroupNormBackward0")
def group_norm(use: Use) -> Factor | None:
    """Normalise: xhat = (x - mean) * rstd over each group of channels."""
    node = use.node
    if set(use.cotangents) != {0}:
        return None
    x = node._saved_input.detach()
    grouped = x.reshape(x.shape[0], node._saved_group, -1)
    mean, rstd = (t.detach().reshape(x.shape[0], -1, 1) for t in (node._saved_result1, node._saved_result2))
    return _per_channel(use, ((grouped - mean) * rstd).view_as(x))
