"""Rows of the table of ops (`_cases.py`) for random projections."""

from __future__ import annotations

import torch

from twophase_fast import ops
from twophase_fast.ops._case import ODD_SIZES, Inputs, OpCase, Sizes, random

_BASE = {"r": 5, "p": 19, "d": 7}


def _sizes() -> list[Sizes]:
    """Each axis in turn runs through odd sizes; the last ones span several panels, counters and blocks of rows."""
    sizes = [{**_BASE, axis: size} for axis in _BASE for size in ODD_SIZES[::2]]
    sizes += [{**_BASE, empty: 0} for empty in ("r", "p")]
    return [*sizes, {"r": 3, "p": 600, "d": 33}, {"r": 520, "p": 20, "d": 300}]


def _numbers(sizes: Sizes) -> Inputs:
    """A seed and an offset beyond 32 bits, such that the counter's carry falls within longer rows."""
    return {"seed": 2**40 + sizes["d"], "offset": 2**32 - 8, "precision": "highest"}


def _make(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    x = random(generator, dtype, sizes["r"], sizes["p"])
    return {"x": x, "directions": sizes["d"], **_numbers(sizes)}


def _make_in_place(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    out, x = (random(generator, dtype, sizes["r"], sizes[axis]) for axis in ("d", "p"))
    return {"out": out, "x": x, **_numbers(sizes)}


PROJECTION_CASES: tuple[OpCase, ...] = (
    OpCase("random_projection", ops.random_projection, _sizes(), _make),
    OpCase("random_projection_", ops.random_projection_, _sizes(), _make_in_place),
)
"""Rows of random projections."""
