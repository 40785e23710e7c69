"""Biases that ride along with the weight of their layer.

With z_t = W a_t + b the Jacobian of b is sum_t g_t, which is the Jacobian of a weight whose input is 1. Where W's block
is factored, a column of ones beside a therefore adds b's block for free:

    sum_{t,s} (a_t . a'_s + 1) (g_t . g'_s)

instead of a second product of all cotangents with each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from twophase_fast.ntk.probe import Structure
from twophase_fast.ntk.uses import UseSpec
from twophase_fast.rules.factors import Factor, Outer

_BIAS, _WEIGHT = 0, 2


def bias_partners(structure: Structure) -> dict[str, str]:
    """Return bias -> weight for every affine layer whose two parameters have this use only."""
    uses = Counter(leaf for use in structure.uses for slot in use.slots for leaf in slot.leaves)
    pairs = (_pair(structure, use) for use in structure.uses if use.name == "AddmmBackward0")
    return {bias: weight for bias, weight in filter(None, pairs) if uses[bias] == uses[weight] == 1}


def _pair(structure: Structure, use: UseSpec) -> tuple[str, str] | None:
    """Return (bias, weight) of z = A W + b with a bias [p] added to every row."""
    node = structure.graph.nodes[use.node]
    slots = {slot.slot: slot for slot in use.slots}
    if not {_BIAS, _WEIGHT} <= set(slots) or node._saved_alpha != 1 or node._saved_beta != 1:
        return None
    source = structure.graph.nodes[slots[_BIAS].source[0]]
    variable = getattr(source, "variable", None)
    names = slots[_BIAS].leaves, slots[_WEIGHT].leaves
    if variable is None or tuple(variable.shape) != tuple(node._input_metadata[0].shape)[1:]:
        return None
    return (names[0][0], names[1][0]) if len(names[0]) == len(names[1]) == 1 else None


def merge_biases(factors: dict[str, Factor], partners: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Put each bias among `names` into its weight's factor, in place, and return the biases that went."""
    merged = []
    for bias in names:
        weight = factors.get(partners.get(bias, ""))
        if bias in factors and isinstance(weight, Outer):
            factors[partners[bias]] = _with_ones(weight)
            del factors[bias]
            merged.append(bias)
    return merged


def _with_ones(factor: Outer) -> Outer:
    """Return the factor of the weight with one more input, which is 1."""
    ones = factor.a.new_ones(*factor.a.shape[:2], 1)
    d, p = factor.a.shape[2] + 1, factor.g.shape[3]
    return replace(factor, a=torch.cat([factor.a, ones], 2), shape=torch.Size((d, p) if factor.transposed else (p, d)))
