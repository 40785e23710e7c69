"""Launch configurations of `embedding_gram` in Triton; keys as those of `factored_gram`."""

from __future__ import annotations

from itertools import product

from twophase_fast.ops._triton.launch import LaunchTable, launch
from twophase_fast.ops.factored_gram.triton_config import LAUNCHES as FACTORED

_EXACT = launch(ROWS=32, COLUMNS=32, DEPTH=16, num_warps=8, num_stages=2)
_SIZES = product(("aligned", "any"), ("large", "small"))

LAUNCHES = LaunchTable(
    op="embedding_gram",
    rows={**FACTORED.rows, **{("ieee", "float32", *rest): (_EXACT,) for rest in _SIZES}},
    interpreted=FACTORED.interpreted,
)
"""The products g g2ᵀ are those of `factored_gram`; smaller blocks are skipped more often."""
