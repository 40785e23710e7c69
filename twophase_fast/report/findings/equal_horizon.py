"""The comparison every chaos figure rests on: an early and a late twin after the same number of steps.

A twin spawned late has had less time to diverge, so anything measured at the end of training falls with the
spawn step by construction. Values are therefore compared at equal horizon h = t1 − t0 only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twophase_fast.report.data import Table, unique, where
from twophase_fast.report.spread import Spread, spreads


@dataclass(frozen=True)
class Comparison:
    """One quantity at the earliest and the latest spawn step of a horizon, per seed."""

    horizon: int
    earliest: int
    latest: int
    first: Mapping[int, float]
    last: Mapping[int, float]


def twins_only(table: Table, variant: str) -> Table:
    """Return the perturbed twins of a variant (no control twins), all of the first perturbation."""
    table = where(table, variant=variant, control=0)
    kinds = unique(table, "perturbation")
    return where(table, perturbation=kinds[0]) if kinds else table


def compare(table: Table, variant: str, value: str, like: Comparison | None = None) -> Comparison | None:
    """Choose the horizon evaluated over the widest range of spawn steps, the longest of several, and compare there.

    Args:
        table: The `twins` table.
        variant: Which trunks.
        value: The column compared.
        like: Take this comparison's horizon and spawn steps where they were evaluated, so that a control is
            held against the same cells.

    Returns:
        The comparison over the seeds that have both cells, or None where no horizon has two spawn steps.
    """
    grid = spreads(twins_only(table, variant), ("horizon", "spawn_step"), value)
    if like is not None and (same := _at(grid, like.horizon, like.earliest, like.latest)) is not None:
        return same
    candidates = sorted(_ranges(grid), key=lambda entry: (entry[2] - entry[1], entry[0]))
    return _at(grid, *candidates[-1]) if candidates else None


def compare_all(table: Table, variant: str, value: str) -> list[Comparison]:
    """Return the comparison of earliest and latest spawn step at every horizon that has two."""
    grid = spreads(twins_only(table, variant), ("horizon", "spawn_step"), value)
    made = (_at(grid, *entry) for entry in sorted(_ranges(grid)))
    return [comparison for comparison in made if comparison is not None]


def _ranges(grid: Mapping[tuple[Any, ...], Spread]) -> list[tuple[int, int, int]]:
    """Return (horizon, earliest, latest) for every horizon with at least two spawn steps."""
    spawns: dict[int, list[int]] = {}
    for horizon, spawn in grid:
        spawns.setdefault(int(horizon), []).append(int(spawn))
    return [(h, min(steps), max(steps)) for h, steps in spawns.items() if len(steps) > 1]


def _at(grid: Mapping[tuple[Any, ...], Spread], horizon: int, earliest: int, latest: int) -> Comparison | None:
    first, last = grid.get((horizon, earliest)), grid.get((horizon, latest))
    if first is None or last is None:
        return None
    seeds = [seed for seed in first.seeds if seed in last.by_seed]
    if not seeds:
        return None
    return Comparison(
        horizon,
        earliest,
        latest,
        {seed: first.by_seed[seed] for seed in seeds},
        {seed: last.by_seed[seed] for seed in seeds},
    )
