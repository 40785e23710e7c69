"""Whether Gram blocks are better collected and added together."""

from __future__ import annotations

import torch

from twophase_fast._types import Precision
from twophase_fast.ops import _dispatch


def adds_together(out: torch.Tensor, precision: Precision) -> bool:
    """Return whether `grouped_gram_` adds all segments to `out` in one launch, where `gram_` takes one for each.

    Args:
        out: What is added to; its values are not read.
        precision: As in `gram`.
    """
    if out.ndim != 2:
        return False
    like = out.new_empty(1, 1)
    return _dispatch.choose("grouped_gram_", None, like, [like], [], precision) == "triton"
