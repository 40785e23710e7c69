"""Mean and range over seeds: the only statistic a report makes of repeated runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twophase_fast.report.data import Run, Table, rows


@dataclass(frozen=True)
class Spread:
    """The finite values of one quantity over seeds, in the order of the seeds."""

    seeds: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean over seeds."""
        return float(np.mean(self.values))

    @property
    def low(self) -> float:
        """Smallest value over seeds."""
        return min(self.values)

    @property
    def high(self) -> float:
        """Largest value over seeds."""
        return max(self.values)

    @property
    def by_seed(self) -> dict[int, float]:
        """The value of each seed."""
        return dict(zip(self.seeds, self.values, strict=True))


def spreads(table: Table, keys: Sequence[str], value: str, repeat: str = "seed") -> dict[tuple[Any, ...], Spread]:
    """Group a table by key columns and gather a value column over the repeats.

    Rows whose value is nan (not evaluated) or infinite are left out; a group with none left is absent.

    Args:
        table: Columns of equal length; an empty table gives no groups.
        keys: Columns to group by.
        value: Column to gather.
        repeat: Column that tells repeats apart.

    Returns:
        Group key (a tuple, also for one column) -> spread, in sorted order of the keys.
    """
    groups: dict[tuple[Any, ...], list[tuple[int, float]]] = defaultdict(list)
    if rows(table) and value in table:
        columns = [table[key].tolist() for key in keys]
        repeats = table[repeat].tolist() if repeat in table else range(rows(table))
        for *key, seed, number in zip(*columns, repeats, table[value].tolist(), strict=True):
            if np.isfinite(number):
                groups[tuple(key)].append((int(seed), float(number)))
    return {
        key: Spread(tuple(seed for seed, _ in pairs), tuple(number for _, number in pairs))
        for key, pairs in sorted(groups.items())
    }


def metric_over_steps(run: Run, variant: str, metric: str) -> dict[int, Spread]:
    """Return step -> spread over seeds of a metric."""
    gathered: dict[int, list[tuple[int, float]]] = {}
    for trunk in run.trunks:
        if trunk.variant == variant and metric in trunk.metrics:
            for step, value in zip(*trunk.metrics[metric], strict=True):
                if np.isfinite(value):
                    gathered.setdefault(int(step), []).append((trunk.seed, float(value)))
    return {
        step: Spread(tuple(seed for seed, _ in pairs), tuple(value for _, value in pairs))
        for step, pairs in sorted(gathered.items())
    }
