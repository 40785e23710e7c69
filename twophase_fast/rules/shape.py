"""Nodes that only move or repeat entries: `expand` (class tokens, learned states)."""

from __future__ import annotations

from twophase_fast.rules._registry import Use, rule
from twophase_fast.rules.elementwise import reduce_to_slot
from twophase_fast.rules.factors import Factor


@rule("ExpandBackward0")
def expand(use: Use) -> Factor | None:
    """Repeat: z = x broadcast to a larger shape."""
    return reduce_to_slot(use, use.g)
