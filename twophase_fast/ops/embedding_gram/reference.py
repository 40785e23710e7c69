"""Definition of the embedding Gram block in plain torch; in float64 it is the truth for every backend.

full[n,m,c,c'] = Σ_{t,s} [tokens[n,t] = tokens2[m,s] ≠ padding_idx] (g[n,c,t]·g2[m,c',s])
"""

from __future__ import annotations

import torch

from twophase_fast.ops import _operands
from twophase_fast.ops.factored_gram.reference import add_weighted, sample_blocks
from twophase_fast.ops.gram import reference as gram_reference


def embedding_gram(
    tokens: torch.Tensor,
    g: torch.Tensor,
    tokens2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    padding_idx: int | None,
    precision: str,
) -> torch.Tensor:
    """Return the embedding Gram block, exactly symmetric without tokens2 and g2."""
    out = _operands.new_gram(output, g, g2)
    embedding_gram_(out, tokens, g, tokens2, g2, output, padding_idx, precision)
    if tokens2 is None:
        gram_reference.symmetrize_(_operands.matrices(output, out))
    return out


def embedding_gram_(
    out: torch.Tensor,
    tokens: torch.Tensor,
    g: torch.Tensor,
    tokens2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    padding_idx: int | None,
    precision: str,
) -> None:
    """Add the embedding Gram block to `out`; without tokens2 and g2 only the blocks n <= m."""
    symmetric = tokens2 is None or g2 is None
    g = gram_reference.widened(g)
    tokens2, g2 = (tokens, g) if tokens2 is None or g2 is None else (tokens2, gram_reference.widened(g2))
    for n in range(tokens.shape[0]):
        for rows in sample_blocks(n if symmetric else 0, g[n], g2):
            equal = tokens2[rows, :, None] == tokens[n]  # [M, S, T]
            if padding_idx is not None:
                equal &= tokens[n] != padding_idx
            add_weighted(out[n, rows], equal.to(g.dtype), g[n], g2[rows], output)
