"""What a figure is on the page: panels that wrap on a narrow screen, one legend, one 'how to read this'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twophase_fast.report.figures.lines import Series
from twophase_fast.report.numbers import pretty
from twophase_fast.report.style import LIGHT, RC, css_variable, panel, to_svg


@dataclass(frozen=True)
class Panel:
    """One drawing with its heading and its alternative text."""

    title: str
    svg: str
    alt: str


@dataclass(frozen=True)
class LegendEntry:
    """A line sample (`solid` or `dashed`) or a `band`, with its meaning."""

    label: str
    color: str
    kind: str = "solid"


@dataclass(frozen=True)
class Block:
    """A figure: title, panels, legend and how to read it."""

    anchor: str
    title: str
    reading: str
    panels: Sequence[Panel]
    legend: Sequence[LegendEntry] = field(default_factory=tuple)


def draw_panel(anchor: str, title: str, alt: str, paint: Callable[[Axes], None], height: float = 3.1) -> Panel:
    """Draw one panel and export it for the page.

    Args:
        anchor: Prefix of the ids inside, unique in the page.
        title: Heading above the panel.
        alt: Alternative text.
        paint: Draws on the axes it is given.
        height: In inches.

    Returns:
        The panel.
    """
    return Panel(title, rendered(anchor, lambda figure: paint(figure.subplots()), height), alt)


def rendered(anchor: str, paint: Callable[[Figure], None], height: float = 3.1) -> str:
    """Return the inline SVG of a figure painted under the report's settings."""
    with mpl.rc_context(RC):
        figure = panel(height)
        paint(figure)
        return to_svg(figure, anchor)


def legend_of(series: Sequence[Series], level: str | None = None) -> list[LegendEntry]:
    """Return legend entries for line series, a level drawn across, and the range band."""
    entries = [LegendEntry(s.label, css_variable(s.color), "dashed" if s.dashed else "solid") for s in series]
    if level:
        entries.append(LegendEntry(level, css_variable(LIGHT["soft"]), "dashed"))
    if any(spread.low < spread.high for s in series for spread in s.points.values()):
        entries.append(LegendEntry("range over seeds", css_variable(LIGHT["soft"]), "band"))
    return entries


def describe(series: Sequence[Series], x: str) -> str:
    """Return the ends of every line in words, for the alternative text."""
    return "; ".join(_ends(entry, x) for entry in series if entry.points) + "."


def _ends(entry: Series, x: str) -> str:
    first, last = min(entry.points), max(entry.points)
    values = pretty(entry.points[first].mean), pretty(entry.points[last].mean)
    if first == last:
        return f"{entry.label}: {values[0]} at {x} {first}"
    return f"{entry.label}: {values[0]} at {x} {first}, {values[1]} at {x} {last}"
