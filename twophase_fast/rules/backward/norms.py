"""Backward of normalisations, with the gradients of their parameters sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.autograd.graph import Node

from twophase_fast import ops
from twophase_fast.rules._saved import epsilon
from twophase_fast.rules.backward.arrival import Arrival

BATCH_NORMS = ("NativeBatchNormBackward0", "CudnnBatchNormBackward0", "MiopenBatchNormBackward0")
"""A GPU's libraries run BatchNorm in evaluation mode, too; what they save has the same meaning."""

LAYER_NORM = "NativeLayerNormBackward0"
NAMES = (*BATCH_NORMS, LAYER_NORM)


@dataclass(frozen=True)
class NormGrads:
    """What comes out of a normalisation: cotangents at its input (None if nobody wants them) and parameter gradients.

    Attributes:
        input: [B, K, *rest].
        weight: [B, K, channels].
        bias: [B, K, channels].
    """

    input: torch.Tensor | None
    weight: torch.Tensor
    bias: torch.Tensor


def norm_backward(arrival: Arrival, relu: Node | None = None) -> NormGrads:
    """Return the backward of a normalisation, after that of the ReLU that follows it, if any.

    `arrival.node` is the normalisation; the cotangents are those at the ReLU's output where there is one.
    """
    return _NORMS[arrival.node.name()][1](arrival, relu)


def accepts(node: Node, slots: tuple[int, ...], blocks: int) -> bool:
    """Return whether `norm_backward` knows this node."""
    return set(slots) <= {0} and _NORMS[node.name()][0](node, blocks)


def _evaluates(node: Node, blocks: int) -> bool:
    whole = node._input_metadata[0].shape[0] == blocks
    return whole and not node._saved_training and node._saved_running_mean is not None


def _over_last_axis(node: Node, blocks: int) -> bool:
    return len(node._saved_normalized_shape) == 1 and len(node._input_metadata[0].shape) > 1


def _batch_norm(arrival: Arrival, relu: Node | None) -> NormGrads:
    node, out = arrival.node, arrival.own()
    mean, variance = node._saved_running_mean, node._saved_running_var
    weight = None if node._saved_weight is None else node._saved_weight.detach()
    x = node._saved_input.detach().contiguous()
    result = None if relu is None else relu._saved_result.detach().contiguous()
    rstd = (variance + epsilon(node)).rsqrt()
    _, weight_grad, bias_grad = ops.batch_norm_grad(arrival.g, x, mean, rstd, weight, relu=result, out=out)
    return NormGrads(out if arrival.slots else None, weight_grad, bias_grad)


def _layer_norm(arrival: Arrival, relu: Node | None) -> NormGrads:
    node, out, channels = arrival.node, arrival.own(), arrival.shape[-1]
    weight = None if node._saved_weight is None else node._saved_weight.detach()
    x = arrival.blocks.cut(node._saved_input.detach().contiguous())
    count, outputs = arrival.g.shape[:2]
    rows = (x.numel() // (count * channels),)
    mean, rstd = (s.contiguous().view(count, *rows) for s in (node._saved_result1, node._saved_result2))
    _, weight_grad, bias_grad = ops.layer_norm_grad(
        arrival.g.view(count, outputs, *rows, channels),
        x.view(count, *rows, channels),
        mean,
        rstd,
        weight,
        out=out.view(count, outputs, *rows, channels),
    )
    return NormGrads(out if arrival.slots else None, weight_grad, bias_grad)


_NORMS: dict[str, tuple[Callable[[Node, int], bool], Callable[[Arrival, Node | None], NormGrads]]] = {
    **dict.fromkeys(BATCH_NORMS, (_evaluates, _batch_norm)),
    LAYER_NORM: (_over_last_axis, _layer_norm),
}
