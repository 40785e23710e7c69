"""The headline figure: both effects and their control in one image, for a README."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from twophase_fast._types import TwoPhaseError
from twophase_fast.report import cone_series as cone
from twophase_fast.report.data import MAIN, Run, read_run
from twophase_fast.report.figures.axes import step_axis, value_axis
from twophase_fast.report.figures.chaos import ceiling
from twophase_fast.report.figures.lines import Series, all_values, draw
from twophase_fast.report.figures.matrix import add_scale, color_scale, paint_matrix
from twophase_fast.report.files import replacing
from twophase_fast.report.findings.equal_horizon import compare, twins_only
from twophase_fast.report.spread import Spread, spreads
from twophase_fast.report.style import LIGHT, RC, VARIANT_COLORS
from twophase_fast.storage import Trajectory

PANEL_INCHES = (4.3, 3.7)
DPI = 160


def draw_headline(source: Trajectory | str | PathLike[str], out: Path) -> Path:
    """Draw C at equal horizon, the matrix S and the half-angle side by side; what was not measured is left out.

    Args:
        source: An open trajectory or the path of a stored one.
        out: The PNG to write.

    Returns:
        The path of the image.

    Raises:
        TwoPhaseError: None of the three was measured.
    """
    run = read_run(source)
    painters = [paint for paint in (_chaos(run), _matrix(run), _angle(run)) if paint is not None]
    if not painters:
        raise TwoPhaseError(f"{run.name} holds neither twin runs nor kernels of two probe steps: nothing to draw")
    with mpl.rc_context({**RC, "savefig.facecolor": "white", "legend.frameon": False, "legend.fontsize": 9}):
        width, height = PANEL_INCHES
        layout = ConstrainedLayoutEngine(w_pad=0.12)
        figure = Figure(figsize=(width * len(painters), height), layout=layout)
        for ax, paint in zip(figure.subplots(1, len(painters), squeeze=False)[0], painters, strict=True):
            paint(figure, ax)
        with replacing(out) as path:
            figure.savefig(path, format="png", dpi=DPI)
    return out


Painter = Callable[[Figure, Axes], None]


def _chaos(run: Run) -> Painter | None:
    main = compare(run.table("twins"), MAIN, "dissimilarity")
    if main is None:
        return None
    series = [_equal_horizon(run, variant, main.horizon) for variant in run.variants]
    series = [entry for entry in series if entry.points]
    top = ceiling(run, MAIN, "dissimilarity")
    top = [replace(entry, label="runs of different seeds") for entry in top]

    def paint(_: Figure, ax: Axes) -> None:
        draw(ax, [*series, *top])
        step_axis(ax, sorted({step for entry in series for step in entry.points}), "spawn step t₀ (root scale)")
        value_axis(ax, all_values([series, top]), "C = 1 − cos(θ, θ′)")
        ax.set_title(f"Chaos: twins after h = {main.horizon} steps")
        ax.legend(loc="best")

    return paint


def _equal_horizon(run: Run, variant: str, horizon: int) -> Series:
    grid = spreads(twins_only(run.table("twins"), variant), ("horizon", "spawn_step"), "dissimilarity")
    points: dict[int, Spread] = {int(spawn): spread for (h, spawn), spread in grid.items() if h == horizon}
    return Series(run.label(variant), VARIANT_COLORS.get(variant, LIGHT["ink"]), points)


def _matrix(run: Run) -> Painter | None:
    if not cone.outputs(run):
        return None
    steps, values = cone.matrix(run, MAIN, cone.primary_output(run))
    if len(steps) < 2:
        return None

    def paint(figure: Figure, ax: Axes) -> None:
        add_scale(figure, paint_matrix(ax, steps, values, color_scale([values])), ax)
        ax.set_title("Kernel distance between probe steps")

    return paint


def _angle(run: Run) -> Painter | None:
    window, output = cone.window(run), cone.primary_output(run)
    found = [(variant, cone.half_angles(run, variant, output)) for variant in run.variants]
    series = [Series(run.label(v), VARIANT_COLORS.get(v, LIGHT["ink"]), points) for v, points in found if points]
    if window is None or not series:
        return None

    def paint(_: Figure, ax: Axes) -> None:
        draw(ax, series)
        step_axis(ax, sorted({step for entry in series for step in entry.points}), "step τ (root scale)")
        value_axis(ax, all_values([series]), "half-angle (degrees)")
        ax.set_title(f"Cone: half-angle over {window} iterations")
        ax.legend(loc="upper right")

    return paint
