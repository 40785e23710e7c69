"""Learning figures: loss, accuracy and, where it changes, the learning rate over steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from twophase_fast.report.data import Run
from twophase_fast.report.figures.axes import linear_steps, value_axis
from twophase_fast.report.figures.block import Block, Panel, describe, draw_panel, legend_of
from twophase_fast.report.figures.lines import Series, all_values, draw
from twophase_fast.report.spread import metric_over_steps
from twophase_fast.report.style import LIGHT, VARIANT_COLORS

READING = (
    "Mean over seeds with the range as a band; dashed lines are the test loss. These are the trunks that all twins "
    "were spawned from and all kernels were taken from."
)


def learning_blocks(run: Run) -> list[Block]:
    """Return the figure of loss and accuracy, or nothing where no metric was stored."""
    losses = _series(run, "train_loss", "train") + _series(run, "test_loss", "test", dashed=True)
    accuracy = _series(run, "test_accuracy", "")
    rates = _series(run, "learning_rate", "") if _changes(run, "learning_rate") else []
    norms = _series(run, "parameter_norm", "")
    panels = [
        *_panel("loss", "Loss", "cross-entropy", losses),
        *_panel("accuracy", "Test accuracy", "share of test points", accuracy, linear=True),
        *_panel("rate", "Learning rate", "learning rate", rates),
        *_panel("norm", "Parameter norm", "‖θ‖₂", norms, linear=True, zero=False),
        *_others(run),
    ]
    if not panels:
        return []
    legend = legend_of(losses or accuracy or norms)
    return [Block("learning-curves", "Loss and accuracy over steps", READING, panels, legend)]


KNOWN = {"train_loss", "test_loss", "test_accuracy", "learning_rate", "parameter_norm"}


def _others(run: Run) -> list[Panel]:
    """Return a panel for every metric of the user's own (a tracker stores whatever it is given)."""
    names = sorted({name for trunk in run.trunks for name in trunk.metrics} - KNOWN)
    made = [_panel(f"metric{i}", name, name, _series(run, name, ""), zero=False) for i, name in enumerate(names)]
    return [panel for panels in made for panel in panels]


def _series(run: Run, metric: str, word: str, *, dashed: bool = False) -> list[Series]:
    made = []
    for variant in run.variants:
        points = metric_over_steps(run, variant, metric)
        if points:
            color = VARIANT_COLORS.get(variant, LIGHT["ink"])
            made.append(Series(f"{run.label(variant)} {word}".strip(), color, points, dashed))
    return made


def _changes(run: Run, metric: str) -> bool:
    found = [trunk.metrics[metric][1] for trunk in run.trunks if metric in trunk.metrics]
    return any(len(np.unique(values)) > 1 for values in found)


def _panel(
    anchor: str, title: str, axis: str, series: Sequence[Series], *, linear: bool = False, zero: bool = True
) -> list[Panel]:
    if not series:
        return []

    def paint(ax: Axes) -> None:
        draw(ax, series)
        linear_steps(ax)
        value_axis(ax, all_values([series]), axis, linear=linear, zero=zero)

    return [draw_panel(anchor, title, f"{title} over steps. {describe(series, 'step')}", paint)]
