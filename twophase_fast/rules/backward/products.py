"""Backward of matrix products: linear layers, batched products, attention."""

from __future__ import annotations

import math

import torch
from torch.autograd.graph import Node

from twophase_fast import ops
from twophase_fast._pages import room
from twophase_fast.rules.backward.arrival import Arrival, Rule, source_shape

ADDMM, MM = "AddmmBackward0", "MmBackward0"
FLASH = "ScaledDotProductFlashAttentionForCpuBackward0"
EFFICIENT = "ScaledDotProductEfficientAttentionBackward0"
_WEIGHT = "_saved_mat2"


def _linear(arrival: Arrival, slot: int) -> dict[int, torch.Tensor]:
    """Return g W, for every row of a product x W^T."""
    if not arrival.slots:
        return {}
    node, held = arrival.node, arrival.sums.get(slot)
    out = arrival.empty(slot) if held is None else held
    weight = getattr(node, _WEIGHT).detach().t()
    if node.name() == ADDMM and node._saved_alpha != 1:
        weight = weight * node._saved_alpha
    ops.linear_input_grad_(_by_rows(out), _by_rows(arrival.g), weight, add=held is not None)
    return {slot: out}


def _by_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return cotangents [B, K, *rest] as [B, K, T, width]."""
    return rows.view(*rows.shape[:2], -1, rows.shape[-1])


def _addmm(arrival: Arrival) -> dict[int, torch.Tensor]:
    return _linear(arrival, 1)


def _mm(arrival: Arrival) -> dict[int, torch.Tensor]:
    return _linear(arrival, 0)


def _bmm(arrival: Arrival) -> dict[int, torch.Tensor]:
    node, found = arrival.node, {}
    g = arrival.g if arrival.merged else arrival.g.unsqueeze(2)
    if 0 in arrival.slots:
        found[0] = _times(g, _batches(node._saved_mat2, arrival.blocks.count).transpose(-1, -2))
    if 1 in arrival.slots:
        found[1] = _times_left(_batches(node._saved_self, arrival.blocks.count).transpose(-1, -2), g)
    return found if arrival.merged else {slot: result.squeeze(2) for slot, result in found.items()}


def _batches(saved: torch.Tensor, blocks: int) -> torch.Tensor:
    """Return a saved operand [S, m, n] as [B, S / B, m, n]."""
    return saved.detach().unflatten(0, (blocks, -1))


def _times(g: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Return g[b, k, h] matrix[b, h] for g [B, K, H, n, p] and matrix [B, H, p, q]."""
    out = room((*g.shape[:4], matrix.shape[3]), g.dtype, g.device)
    return ops.batched_product_(out, g, matrix.unsqueeze(1))


def _times_left(matrix: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Return matrix[b, h] g[b, k, h] for matrix [B, H, m, n] and g [B, K, H, n, p]."""
    out = room((*g.shape[:3], matrix.shape[2], g.shape[4]), g.dtype, g.device)
    return ops.batched_product_(out, matrix.unsqueeze(1), g)


def _attention(arrival: Arrival) -> dict[int, torch.Tensor]:
    """Scaled dot-product attention [S, heads, positions, width] with weights P.

    V' = P^T g; with the scores' cotangents Z = scale P (g V^T - sum(g out)), Q' = Z K and K' = Z^T Q (Dao et al. 2022,
    appendix B).
    """
    node, found = arrival.node, {}
    weights = _attention_weights(node)
    saved = [*(getattr(node, f"_saved_{name}") for name in ("query", "key", "value")), _attention_output(node, weights)]
    q, k, v, out, weights = (_heads(arrival, tensor) for tensor in (*saved, weights))
    g = arrival.g.flatten(2, 3) if arrival.merged else arrival.g
    if 2 in arrival.slots:
        found[2] = _times_left(weights.transpose(-1, -2), g)
    if not {0, 1}.isdisjoint(arrival.slots):
        inner = (g * out.unsqueeze(1)).sum(-1, keepdim=True)
        scores = _times(g, v.transpose(-1, -2)).sub_(inner).mul_((weights * _scale(node)).unsqueeze(1))
        found |= {0: _times(scores, k), 1: _times(scores.transpose(-1, -2), q)}
    heads = (arrival.g.shape[2:4],) if arrival.merged else ()
    return {slot: found[slot].unflatten(2, *heads) if heads else found[slot] for slot in arrival.slots}


def _heads(arrival: Arrival, saved: torch.Tensor) -> torch.Tensor:
    """Return [S, heads, m, n] as [B, S / B heads, m, n]."""
    blocks = arrival.blocks.cut(saved.detach())
    return blocks.flatten(1, 2) if arrival.merged else blocks


def _scale(node: Node) -> float:
    return node._saved_scale if node._saved_scale is not None else 1 / math.sqrt(node._saved_query.shape[-1])


def _attention_weights(node: Node) -> torch.Tensor:
    """Return P = softmax(scale Q K^T + mask) [S, heads, positions, positions], zero in rows without a key."""
    scores = (node._saved_query.detach() @ node._saved_key.detach().transpose(-1, -2)) * _scale(node)
    mask = node._saved_attn_bias if node.name() == EFFICIENT else node._saved_attn_mask
    if node._saved_is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask.detach()
    if node.name() == EFFICIENT:  # its sums are rounded as the GPU's kernel likes, and padded
        sums = scores.logsumexp(-1, keepdim=True)
    else:
        sums = node._saved_logsumexp.unsqueeze(-1)
    return torch.where(sums > -math.inf, (scores - sums).exp(), 0.0)


def _attention_output(node: Node, weights: torch.Tensor) -> torch.Tensor:
    """Return P V: what is saved, or on a GPU, whose kernel may round it, in full precision."""
    return weights @ node._saved_value.detach() if node.name() == EFFICIENT else node._saved_output


def _by_input(node: Node, slots: tuple[int, ...]) -> bool:
    """Whether only the layer's input has cotangents."""
    return set(slots) <= {1 if node.name() == ADDMM else 0}


def _attends(node: Node, slots: tuple[int, ...]) -> bool:
    heads = {source_shape(node, slot)[1] for slot in slots}
    return set(slots) <= {0, 1, 2} and node._saved_dropout_p == 0 and heads <= {node._input_metadata[0].shape[1]}


RULES = {
    ADDMM: Rule(_addmm, _by_input),
    MM: Rule(_mm, _by_input),
    "BmmBackward0": Rule(_bmm, strided=True),
    FLASH: Rule(_attention, _attends, strided=True),
    EFFICIENT: Rule(_attention, _attends, strided=True),
}
