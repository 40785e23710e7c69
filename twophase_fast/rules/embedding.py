"""Table look-ups: z_t = W[token_t]."""

from __future__ import annotations

import torch

from twophase_fast.rules._registry import Use, rule
from twophase_fast.rules._saved import signed
from twophase_fast.rules.factors import Factor, Lookup


@rule("EmbeddingBackward0")
def embedding(use: Use) -> Factor | None:
    """The rows of W that were read; `padding_idx` has no gradient."""
    tokens = use.node._saved_indices
    if tokens.dim() != len(use.node._input_metadata[0].shape) - 1 or use.layout.axis >= tokens.dim():
        return None
    by_sample = use.layout.by_sample(tokens)
    by_sample = by_sample.reshape(by_sample.shape[0], -1).long()
    padding = signed(use.node._saved_padding_idx)
    if padding >= 0:
        by_sample = torch.where(by_sample == padding, use.shape[0], by_sample)
    return Lookup(by_sample.contiguous(), use.rows(), use.shape)
