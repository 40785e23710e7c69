"""Tables of the kernel's motion over probe steps."""

from __future__ import annotations

from itertools import pairwise

from twophase_fast.report import cone_series as cone
from twophase_fast.report.data import Run, rows, unique, where
from twophase_fast.report.numbers import count
from twophase_fast.report.spread import Spread, spreads
from twophase_fast.report.tables.sheet import Sheet, over_seeds, word


def probe_sheets(run: Run) -> list[Sheet]:
    """Return, per variant, S to the previous probe step, velocity and half-angle at every probe step."""
    return [_sheet(run, variant) for variant in run.variants if rows(_distances(run, variant))]


def _distances(run: Run, variant: str) -> dict:
    return where(run.table("kernel_distance"), variant=variant)


def _sheet(run: Run, variant: str) -> Sheet:
    table, steps = _distances(run, variant), cone.probe_steps(run, variant)
    outputs = [output for output in cone.outputs(run) if rows(where(table, output=output))]
    series: dict[str, dict[int, Spread]] = {}
    for output in outputs:
        series |= _columns(run, variant, output, steps)
    body = [[word(step), *(over_seeds(points.get(step)) for points in series.values())] for step in steps]
    note = f"Mean and range over {count(len(unique(table, 'seed')), 'seed')}. {_units(cone.window(run))}"
    page_only = frozenset(f"velocity, {output}" for output in outputs[1:])
    return Sheet(f"Kernel motion, {run.label(variant)}", ["probe step", *series], body, note, page_only)


def _columns(run: Run, variant: str, output: str, steps: list[int]) -> dict[str, dict[int, Spread]]:
    """Return heading -> step -> spread of one kernel output."""
    columns = {
        f"S to previous, {output}": _to_previous(run, variant, output, steps),
        f"velocity, {output}": _velocity(run, variant, output, steps),
    }
    if cone.window(run) is not None:
        columns[f"half-angle, {output}"] = cone.half_angles(run, variant, output)
    return columns


def _units(window: int | None) -> str:
    velocity = "Velocity is S per iteration since the previous probe step."
    if window is None:
        return velocity
    return (
        f"{velocity} Half-angle: degrees, over a fixed window of {window:,} iterations; blank where it passes the end."
    )


def _to_previous(run: Run, variant: str, output: str, steps: list[int]) -> dict[int, Spread]:
    found = spreads(cone.distances(run, variant, output), ("step_a", "step_b"), "distance")
    return {last: found[first, last] for first, last in pairwise(steps) if (first, last) in found}


def _velocity(run: Run, variant: str, output: str, steps: list[int]) -> dict[int, Spread]:
    gap = {last: last - first for first, last in pairwise(steps)}
    return {
        step: Spread(spread.seeds, tuple(value / gap[step] for value in spread.values))
        for step, spread in _to_previous(run, variant, output, steps).items()
    }
