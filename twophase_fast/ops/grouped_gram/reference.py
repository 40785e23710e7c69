"""The sum of Gram blocks in plain torch: the definition."""

from __future__ import annotations

import torch

from twophase_fast.ops.gram import reference


def grouped_gram_(out: torch.Tensor, xs: list[torch.Tensor], ys: list[torch.Tensor], precision: str) -> None:
    """Add x yᵀ to `out` for every pair of segments; an empty `ys` stands for `xs`."""
    for x, y in zip(xs, ys or xs, strict=True):
        reference.gram_(out, x, y, precision)
