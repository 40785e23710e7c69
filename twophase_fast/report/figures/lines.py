"""Lines with ranges: the mean over seeds as a line, the range over seeds as a band."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from twophase_fast.report.spread import Spread
from twophase_fast.report.style import LIGHT, ramp

MAX_MARKERS = 40


@dataclass(frozen=True)
class Series:
    """One line: x -> spread over seeds, with its legend text and colour."""

    label: str
    color: str
    points: Mapping[int, Spread]
    dashed: bool = False

    @property
    def values(self) -> list[float]:
        """Every value an axis must hold: means and both ends of the ranges."""
        return [value for spread in self.points.values() for value in (spread.mean, spread.low, spread.high)]


def ordered(points: Mapping[int, Mapping[int, Spread]], text: str) -> list[Series]:
    """Return one series per key, coloured along the sequential ramp in the order of the keys.

    Args:
        points: Key (horizon, dt, reference) -> x -> spread; keys without points are left out.
        text: Legend text with one `{}` for the key.

    Returns:
        The series, in the order of the keys.
    """
    filled = {key: value for key, value in points.items() if value}
    colors = ramp(len(filled))
    return [Series(text.format(f"{key:,}"), color, filled[key]) for key, color in zip(filled, colors, strict=True)]


def draw(ax: Axes, series: Iterable[Series]) -> None:
    """Draw the series on the axes: a band from lowest to highest seed under each mean line."""
    for entry in series:
        x = np.array(list(entry.points))
        low, high = ([getattr(s, side) for s in entry.points.values()] for side in ("low", "high"))
        if any(spread.low < spread.high for spread in entry.points.values()):
            ax.fill_between(x, low, high, color=entry.color, alpha=0.16, linewidth=0)
        ax.plot(
            x,
            [spread.mean for spread in entry.points.values()],
            color=entry.color,
            linestyle=(0, (4, 2)) if entry.dashed else "-",
            marker="o" if len(x) <= MAX_MARKERS else "",
            label=entry.label,
            clip_on=False,
        )


def draw_level(ax: Axes, level: float | None) -> None:
    """Draw a dashed line across the panel (nothing for None)."""
    if level is not None:
        ax.axhline(level, color=LIGHT["soft"], linestyle=(0, (5, 3)), linewidth=1.4)


def all_values(groups: Iterable[Sequence[Series]]) -> list[float]:
    """Return every value that panels with a common axis must hold."""
    return [value for series in groups for entry in series for value in entry.values]
