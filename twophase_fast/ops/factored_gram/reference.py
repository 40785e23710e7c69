"""Definition of the factored Gram block in plain torch; in float64 it is the truth for every backend.

full[n,m,c,c'] = Σ_{t,s} (a[n,t]·a2[m,s]) (g[n,c,t]·g2[m,c',s])
              = Σ_{t,p} g[n,c,t,p] H[m,c',t,p]   with H[m,c',t] = Σ_s (a[n,t]·a2[m,s]) g2[m,c',s]
"""

from __future__ import annotations

import torch

from twophase_fast.ops import _operands
from twophase_fast.ops._ieee import ieee_float32
from twophase_fast.ops.gram import reference as gram_reference

BLOCK_ELEMENTS = 1 << 23  # elements of one intermediate; bounds the memory, not the result


def factored_gram(
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    precision: str,
) -> torch.Tensor:
    """Return the factored Gram block, exactly symmetric without a2 and g2."""
    out = _operands.new_gram(output, g, g2)
    factored_gram_(out, a, g, a2, g2, output, precision)
    if a2 is None:
        gram_reference.symmetrize_(_operands.matrices(output, out))
    return out


def factored_gram_(
    out: torch.Tensor,
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    precision: str,
) -> None:
    """Add the factored Gram block to `out`; without a2 and g2 only the blocks n <= m."""
    symmetric = a2 is None or g2 is None
    a, g = gram_reference.widened(a), gram_reference.widened(g)
    a2, g2 = (a, g) if a2 is None or g2 is None else (gram_reference.widened(a2), gram_reference.widened(g2))
    for n in range(a.shape[0]):
        for rows in sample_blocks(n if symmetric else 0, g[n], g2):
            with ieee_float32():
                weights = a2[rows] @ a[n].T  # [M, S, T]
            add_weighted(out[n, rows], weights, g[n], g2[rows], output)


def sample_blocks(first: int, g_n: torch.Tensor, g2: torch.Tensor) -> list[slice]:
    """Return slices of samples m >= first whose intermediates have about `BLOCK_ELEMENTS` elements."""
    (_, positions, outputs), (samples, classes2, positions2, _) = g_n.shape, g2.shape
    per_sample = positions * max(classes2 * outputs, positions2, 1)
    step = max(1, BLOCK_ELEMENTS // max(per_sample, 1))
    return [slice(m, min(m + step, samples)) for m in range(first, samples, step)]


def add_weighted(out: torch.Tensor, weights: torch.Tensor, g_n: torch.Tensor, g2: torch.Tensor, output: str) -> None:
    """Add Σ_{t,s} weights[m,s,t] (g_n[c,t]·g2[m,c',s]) to out[m,c,c'], or its trace to out[m], diagonal to out[m,c]."""
    with ieee_float32():
        h = weights.mT.unsqueeze(1) @ g2  # [M, C', T, p]
        if output == "full":
            out += (h.flatten(2) @ g_n.flatten(1).T).mT
        elif output == "diagonal":
            out += (h * g_n).flatten(2).sum(-1)
        else:
            out += (h * g_n).flatten(1).sum(-1)
