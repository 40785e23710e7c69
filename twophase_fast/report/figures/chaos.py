"""Chaos figures: what separates trunk and twin, over spawn step and horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from twophase_fast.report.data import Run, unique, where
from twophase_fast.report.figures.axes import step_axis, value_axis
from twophase_fast.report.figures.block import Block, Panel, describe, draw_panel, legend_of
from twophase_fast.report.figures.lines import Series, all_values, draw, draw_level, ordered
from twophase_fast.report.findings.barrier import BARRIER_SHARE, barrier_threshold
from twophase_fast.report.findings.equal_horizon import compare, twins_only
from twophase_fast.report.spread import Spread, spreads
from twophase_fast.report.style import LIGHT

SPAWN_LABEL = "spawn step t₀ (iterations, root scale)"
HORIZON_LABEL = "horizon h = t₁ − t₀ (iterations, root scale)"


@dataclass(frozen=True)
class Measure:
    """A column of the `twins` table and how its figure is worded."""

    column: str
    title: str
    axis: str
    reading: str
    linear: bool = False


THRESHOLD_LABEL = f"counts from here: {BARRIER_SHARE:.0%} of the test loss"

EQUAL_HORIZON = (
    "Follow one line: it compares twins that had equally long to drift apart. A line that falls to the right means "
    "that early training is the sensitive part; comparing different lines at one t₀ only shows that twins drift."
)

MEASURES = (
    Measure("dissimilarity", "Parameter dissimilarity C", "C = 1 − cos(θ, θ′)", EQUAL_HORIZON),
    Measure("distance", "Parameter distance", "‖θ − θ′‖₂", "As for C, but not relative to the size of the weights."),
    Measure(
        "barrier",
        "Loss barrier",
        "barrier B (test loss)",
        "How far the test loss rises above the straight line between its ends on the path from twin to trunk. 0: the "
        "two are linearly connected. It is a maximum, hence never negative, and small values mean nothing.",
        linear=True,
    ),
    Measure(
        "disagreement",
        "Disagreement rate",
        "share of test points",
        "The share of test points on which twin and trunk predict different classes, whatever the true class.",
        linear=True,
    ),
)


def chaos_blocks(run: Run) -> list[Block]:
    """Return one figure per measure that was evaluated, and the drift of C over the horizon."""
    blocks = [block for measure in MEASURES if (block := _over_spawn(run, measure)) is not None]
    drift = _over_horizon(run)
    return [*blocks[:1], *([drift] if drift else []), *blocks[1:]]


def ceiling(run: Run, variant: str, column: str) -> list[Series]:
    """Return what runs of different seeds differ by at step t₀ + h, over t₀, at the horizon the findings compare."""
    compared = compare(run.table("twins"), variant, column)
    found = spreads(where(run.table("ceilings"), variant=variant), ("step",), column, repeat="seed_b")
    if compared is None or not found:
        return []
    horizon = compared.horizon
    spawns = unique(where(twins_only(run.table("twins"), variant), horizon=horizon), "spawn_step")
    points = {spawn: found[spawn + horizon,] for spawn in spawns if (spawn + horizon,) in found}
    label = f"ceiling at h = {horizon}: runs of different seeds at step t₀ + h"
    return [Series(label, LIGHT["soft"], points, dashed=True)] if points else []


def by_horizon(run: Run, variant: str, column: str) -> list[Series]:
    """Return one series per horizon: spawn step -> spread over seeds."""
    return ordered(_nested(run, variant, column, "horizon", "spawn_step"), "h = {}")


def by_spawn(run: Run, variant: str, column: str) -> list[Series]:
    """Return one series per spawn step: horizon -> spread over seeds."""
    return ordered(_nested(run, variant, column, "spawn_step", "horizon"), "t₀ = {}")


def _nested(run: Run, variant: str, column: str, outer: str, inner: str) -> dict[int, dict[int, Spread]]:
    nested: dict[int, dict[int, Spread]] = {}
    for (key, x), spread in spreads(twins_only(run.table("twins"), variant), (outer, inner), column).items():
        nested.setdefault(int(key), {})[int(x)] = spread
    return nested


def _over_spawn(run: Run, measure: Measure) -> Block | None:
    groups = _groups({variant: by_horizon(run, variant, measure.column) for variant in run.variants})
    if not groups:
        return None
    groups = {variant: [*series, *ceiling(run, variant, measure.column)] for variant, series in groups.items()}
    levels = {variant: _level(run, variant, measure.column) for variant in groups}
    values = [*all_values(groups.values()), *(level for level in levels.values() if level is not None)]
    panels = [_panel(run, measure, v, series, levels[v], values, SPAWN_LABEL) for v, series in groups.items()]
    title = f"{measure.title} over spawn step and horizon"
    legend = legend_of(_longest(groups), THRESHOLD_LABEL if measure.column == "barrier" else None)
    return Block(f"chaos-{measure.column}", title, measure.reading, panels, legend)


def _level(run: Run, variant: str, column: str) -> float | None:
    """Return from what a barrier counts, to be drawn across its panels."""
    return barrier_threshold(twins_only(run.table("twins"), variant)) if column == "barrier" else None


def _over_horizon(run: Run) -> Block | None:
    groups = _groups({variant: by_spawn(run, variant, "dissimilarity") for variant in run.variants})
    if not groups or max(len(entry.points) for series in groups.values() for entry in series) < 2:
        return None
    measure = Measure("drift", "C while twins drift apart", MEASURES[0].axis, "")
    values = all_values(groups.values())
    panels = [_panel(run, measure, v, series, None, values, HORIZON_LABEL) for v, series in groups.items()]
    reading = (
        "The same numbers against the horizon, one line per spawn step. On the log axis a straight rise is exponential "
        "drift; lines of late twins that stay flat mean that the perturbation is no longer amplified."
    )
    return Block("chaos-drift", measure.title, reading, panels, legend_of(_longest(groups)))


def _groups(groups: Mapping[str, list[Series]]) -> dict[str, list[Series]]:
    return {variant: series for variant, series in groups.items() if series}


def _longest(groups: Mapping[str, list[Series]]) -> list[Series]:
    return max(groups.values(), key=len)


def _panel(
    run: Run,
    measure: Measure,
    variant: str,
    series: Sequence[Series],
    level: float | None,
    values: Sequence[float],
    x_label: str,
) -> Panel:
    steps = sorted({step for entry in series for step in entry.points})

    def paint(ax: Axes) -> None:
        draw_level(ax, level)
        draw(ax, series)
        step_axis(ax, steps, x_label)
        value_axis(ax, values, measure.axis, linear=measure.linear)

    x = "t₀" if x_label == SPAWN_LABEL else "h"
    alt = f"{measure.title}, {run.label(variant)}, mean over seeds. {describe(series, x)}"
    return draw_panel(f"{measure.column}-{variant}", run.label(variant), alt, paint)
