"""The sum of Gram blocks in C++: one call per segment, whose threads it fills."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twophase_fast.ops.gram import cpu

refuses = cpu.refuses
"""Why the ops of this folder do not run here."""


def grouped_gram_(out: torch.Tensor, xs: list[torch.Tensor], ys: list[torch.Tensor], precision: str) -> None:
    """Add x yᵀ to `out` for every pair of segments; an empty `ys` stands for `xs`, upper triangle only."""
    seconds: Sequence[torch.Tensor | None] = ys or [None] * len(xs)
    for x, y in zip(xs, seconds, strict=True):
        cpu.gram_(out, x, y, precision)
