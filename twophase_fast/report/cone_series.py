"""Series over probe steps that figures, tables and findings share, all read from the `kernel_distance` table."""

from __future__ import annotations

import numpy as np

from twophase_fast.report.data import Array, Run, Table, integers, setting, unique, where
from twophase_fast.report.spread import Spread, spreads

MAX_SERIES = 5


def distances(run: Run, variant: str, output: str) -> Table:
    """Return the rows of `kernel_distance` for a variant and a kernel output (`full` or `trace`)."""
    return where(run.table("kernel_distance"), variant=variant, output=output)


def outputs(run: Run) -> list[str]:
    """Return the kernel outputs with stored distances, `full` first."""
    found = unique(run.table("kernel_distance"), "output")
    return sorted(found, key=lambda name: (name != "full", name))


def primary_output(run: Run) -> str:
    """Return the kernel output the findings speak of: `full` where it is stored."""
    return next(iter(outputs(run)), "full")


def probe_steps(run: Run, variant: str | None = None) -> list[int]:
    """Return the probe steps of a variant, or of all."""
    table = run.table("kernel_distance")
    table = table if variant is None else where(table, variant=variant)
    return sorted({*unique(table, "step_a"), *unique(table, "step_b")})


def spacings(run: Run) -> list[int]:
    """Return the dt (iterations) to draw, smallest first: those configured, else the commonest ones stored."""
    table = run.table("kernel_distance")
    if not table:
        return []
    gaps, counts = np.unique(table["step_b"] - table["step_a"], return_counts=True)
    stored = dict(zip(gaps.tolist(), counts.tolist(), strict=True))
    wanted = [dt for dt in integers(setting(run.config, "cone.dts")) if dt in stored]
    if wanted:
        return wanted
    return sorted(sorted(stored, key=lambda gap: (-stored[gap], gap))[:MAX_SERIES])


def headline_spacing(run: Run) -> int | None:
    """Return the dt stored over the widest range of t, the smallest of several; None where there is none."""
    table, candidates = run.table("kernel_distance"), spacings(run)
    if not candidates:
        return None
    gaps = table["step_b"] - table["step_a"]
    return max(candidates, key=lambda dt: (int(np.ptp(table["step_a"][gaps == dt])), -dt))


def references(run: Run) -> list[int]:
    """Return the reference steps τ to draw: those configured, else up to five spread over the probe steps."""
    steps = probe_steps(run)
    wanted = [step for step in integers(setting(run.config, "cone.references")) if step in steps]
    if wanted or not steps:
        return wanted
    chosen = np.linspace(0, len(steps) - 1, min(MAX_SERIES, len(steps))).round().astype(int)
    return [steps[index] for index in chosen]


def drift(run: Run, variant: str, output: str, spacing: int) -> dict[int, Spread]:
    """Return t -> S(K_t, K_t+dt) over seeds, for one dt."""
    table = distances(run, variant, output)
    if not table:
        return {}
    return _by_step(_take(table, table["step_b"] - table["step_a"] == spacing), "distance")


def per_distance(run: Run, variant: str, output: str, spacing: int) -> dict[int, Spread]:
    """Return t -> S(K_t, K_t+dt) / relative parameter distance over the same steps (seeds gathered)."""
    table = distances(run, variant, output)
    if not table or "relative_parameter_distance" not in table:
        return {}
    moved = table["relative_parameter_distance"]
    near = _take(table, (table["step_b"] - table["step_a"] == spacing) & (moved > 0))
    near["ratio"] = near["distance"] / near["relative_parameter_distance"]
    return _by_step(near, "ratio")


def to_reference(run: Run, variant: str, output: str, reference: int) -> dict[int, Spread]:
    """Return t -> S(K_t, K_τ) over seeds for one reference τ; at t = τ it is 0 and left out."""
    table = distances(run, variant, output)
    if not table:
        return {}
    before = spreads(where(table, step_b=reference), ("step_a",), "distance")
    after = spreads(where(table, step_a=reference), ("step_b",), "distance")
    return {int(key[0]): spread for key, spread in sorted({**before, **after}.items())}


def half_angles(run: Run, variant: str, output: str) -> dict[int, Spread]:
    """Return τ -> half-angle in degrees over the fixed window; τ whose window passes the end are absent."""
    return _by_step(where(run.table("cone"), variant=variant, output=output), "half_angle_degrees", "step")


def window(run: Run) -> int | None:
    """Return the fixed window W (iterations) of the half-angle, or None where it was not measured."""
    stored = unique(run.table("cone"), "window")
    return int(stored[0]) if stored else None


def matrix(run: Run, variant: str, output: str) -> tuple[list[int], Array]:
    """Return probe steps and the symmetric matrix S(K_i, K_j), mean over seeds; diagonal 0, nan where unknown."""
    steps = probe_steps(run, variant)
    place = {step: index for index, step in enumerate(steps)}
    values = np.full((len(steps), len(steps)), np.nan)
    np.fill_diagonal(values, 0.0)
    for (first, second), spread in spreads(distances(run, variant, output), ("step_a", "step_b"), "distance").items():
        values[place[first], place[second]] = values[place[second], place[first]] = spread.mean
    return steps, values


def _take(table: Table, keep: Array) -> Table:
    return {column: values[keep] for column, values in table.items()}


def _by_step(table: Table, value: str, step: str = "step_a") -> dict[int, Spread]:
    return {int(key[0]): spread for key, spread in spreads(table, (step,), value).items()}
