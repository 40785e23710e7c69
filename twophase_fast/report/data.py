"""What a report is made from: one stored trajectory, read once into plain arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twophase_fast.storage import Trajectory

Array: TypeAlias = NDArray[Any]
Table: TypeAlias = dict[str, Array]

MAIN = "main"
LOW_LR = "low_lr"
VARIANT_NAMES = {MAIN: "main", LOW_LR: "low learning rate"}


@dataclass(frozen=True)
class Trunk:
    """One trained run: its place in the experiment and its scalar metrics over steps."""

    variant: str
    seed: int
    learning_rate: float
    metrics: Mapping[str, tuple[Array, Array]]


@dataclass(frozen=True)
class Run:
    """Everything the report reads from a trajectory; tables that were not measured are empty."""

    name: str
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    trunks: tuple[Trunk, ...]
    tables: Mapping[str, Table] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        """Return the table of that name, or an empty one (no columns) where it was not measured."""
        return self.tables.get(name, {})

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that occur in trunks or tables, `main` first."""
        found = {trunk.variant for trunk in self.trunks}
        for table in self.tables.values():
            found |= set(unique(table, "variant"))
        return tuple(sorted(found, key=lambda name: (name != MAIN, name)))

    def learning_rate(self, variant: str) -> float:
        """Return the learning rate the variant's trunks were given, nan if unknown."""
        rates = [trunk.learning_rate for trunk in self.trunks if trunk.variant == variant]
        return rates[0] if rates else float("nan")

    def label(self, variant: str) -> str:
        """Return the variant's name with its learning rate, as legends and tables print it."""
        name, rate = VARIANT_NAMES.get(variant, variant), self.learning_rate(variant)
        return name if np.isnan(rate) else f"{name} (lr {rate:g})"


def rows(table: Table) -> int:
    """Return the number of rows of a table (0 for an absent one)."""
    return len(next(iter(table.values()))) if table else 0


def where(table: Table, **wanted: object) -> Table:
    """Return the rows whose columns equal the wanted values; a column that is absent excludes no row."""
    keep = np.ones(rows(table), dtype=bool)
    for column, value in wanted.items():
        if column in table:
            keep &= table[column] == value
    return {column: values[keep] for column, values in table.items()}


def unique(table: Table, column: str) -> list[Any]:
    """Return the sorted distinct values of a column as plain Python values."""
    return np.unique(table[column]).tolist() if rows(table) and column in table else []


@contextmanager
def opened(source: Trajectory | str | PathLike[str]) -> Iterator[Trajectory]:
    """Yield the trajectory itself, or the one opened from a path and closed at the end."""
    if isinstance(source, str | PathLike):
        with Trajectory.open(source) as trajectory:
            yield trajectory
    else:
        yield source


def read_run(source: Trajectory | str | PathLike[str], name: str | None = None) -> Run:
    """Read a stored trajectory, an experiment's or a tracker's.

    A tracker's trajectory has kernels and metrics at its root and no tables: it becomes one trunk of variant
    `main`, and its kernel distances are computed here, so that the same figures serve both.

    Args:
        source: An open trajectory, or the path of a stored one.
        name: How the page calls it; the file's name by default.

    Returns:
        The run as plain arrays.
    """
    with opened(source) as trajectory:
        tables = {table: _readable(trajectory.table(table)) for table in trajectory.tables}
        if "kernel_distance" not in tables and len(trajectory.steps) > 1:
            tables["kernel_distance"] = _distance_table(trajectory)
        return Run(
            name=name or (Path(source).stem if isinstance(source, str | PathLike) else "trajectory"),
            config=dict(trajectory.config or {}),
            provenance=dict(trajectory.provenance or {}),
            trunks=tuple(_trunks(trajectory)),
            tables={key: table for key, table in tables.items() if rows(table)},
        )


def _readable(table: Mapping[str, Array]) -> Table:
    """Turn byte strings into text, leave numbers alone."""
    return {column: _text(np.asarray(values)) for column, values in table.items()}


def _text(values: Array) -> Array:
    if values.dtype.kind not in "SO":
        return values
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], dtype=str)


def _trunks(trajectory: Trajectory) -> Iterator[Trunk]:
    for child_name in trajectory.children:
        child = trajectory.child(child_name)
        attrs = child.attrs
        yield Trunk(
            variant=str(attrs.get("variant", MAIN)),
            seed=int(attrs.get("seed", 0)),
            learning_rate=float(attrs.get("learning_rate", "nan")),
            metrics=_metrics(child),
        )
    if trajectory.metrics:
        yield Trunk(MAIN, 0, float("nan"), _metrics(trajectory))


def _metrics(trajectory: Trajectory) -> dict[str, tuple[Array, Array]]:
    read = {name: trajectory.metric(name) for name in trajectory.metrics}
    return {name: (np.asarray(steps), np.asarray(values)) for name, (steps, values) in read.items()}


def _distance_table(trajectory: Trajectory) -> Table:
    """Return S over all pairs of a tracker's kernels, in the layout an experiment stores."""
    steps = np.asarray(trajectory.steps)
    distances = np.asarray(trajectory.kernel_distances())
    first, second = np.triu_indices(len(steps), k=1)
    count = len(first)
    return {
        "variant": np.full(count, MAIN),
        "seed": np.zeros(count, dtype=np.int64),
        "output": np.full(count, "full" if trajectory.kernel(int(steps[0])).ndim == 4 else "stored"),
        "step_a": steps[first],
        "step_b": steps[second],
        "distance": distances[first, second],
        "relative_parameter_distance": np.full(count, np.nan),
    }


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested configuration as (dotted key, value) pairs in stored order; lists of tables are numbered."""
    pairs: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            pairs += flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
            pairs += flatten({str(index + 1): entry for index, entry in enumerate(value)}, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def setting(config: Mapping[str, Any], dotted: str, default: Any = None) -> Any:
    """Return `config["a"]["b"]` for "a.b", or the default where any part is missing."""
    value: Any = config
    for key in dotted.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return default
        value = value[key]
    return value


def integers(values: Sequence[Any] | None) -> list[int]:
    """Return a stored list of steps as sorted integers (an empty list for None)."""
    return sorted(int(value) for value in values or [])
