"""Embedding Gram blocks in C++ (`csrc/embedding_gram`): equal tokens are summed, then matched by merging."""

from __future__ import annotations

from functools import partial

import torch

from twophase_fast import _native
from twophase_fast.ops import _cpu, _operands
from twophase_fast.ops._checks import FLOATS, TOKENS
from twophase_fast.ops.embedding_gram import config
from twophase_fast.ops.gram import cpu as gram_cpu

refuses = partial(_operands.cpu_refuses, dtypes=(*FLOATS, *TOKENS))
"""Why the ops of this folder do not run here."""


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
    out = _operands.new_gram(output, g, g2, _cpu.zeros)
    embedding_gram_(out, tokens, g, tokens2, g2, output, padding_idx, precision)
    if tokens2 is None:
        gram_cpu.symmetrize_(_operands.matrices(output, out))
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
    """Add the embedding Gram block to `out`; without tokens2 and g2 only the pairs n <= m."""
    second = (None, None) if tokens2 is None or g2 is None else (tokens2.long().numpy(), g2.numpy())
    first = (tokens.long().numpy(), g.numpy())
    _native.call("embedding_gram_", out.numpy(), *first, *second, output, padding_idx, config.WORKSPACE)
