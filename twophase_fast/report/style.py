"""Colours, type and SVG export of the figures.

A figure is drawn once, in the light colours. On the page every colour is a CSS variable, so the same SVG follows
the reader's light or dark scheme. Text stays text, in the page's own font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from twophase_fast.report.data import LOW_LR, MAIN

RAMP = 8
"""Steps of the sequential ramp that colours ordered series (horizons, dt, references)."""

_VIRIDIS = mpl.colormaps["viridis"]


def _ramp(name: str, start: float, stop: float) -> dict[str, str]:
    return {f"{name}{i}": to_hex(_VIRIDIS(x)) for i, x in enumerate(np.linspace(start, stop, RAMP))}


LIGHT: Mapping[str, str] = {
    "ink": "#1b1d22",
    "soft": "#5a606b",
    "rule": "#d9dbe0",
    "main": "#0068a8",
    "low": "#c2500a",
    "blank": "#eceef1",
    **_ramp("ramp", 0.02, 0.80),
}
"""Token -> colour on a light page (blue and vermilion of Okabe and Ito, darkened for contrast)."""

DARK: Mapping[str, str] = {
    "ink": "#ecebe6",
    "soft": "#a4a9b3",
    "rule": "#3a3e46",
    "main": "#56b4e9",
    "low": "#f0954a",
    "blank": "#2a2d33",
    **_ramp("ramp", 0.32, 0.98),
}
"""The same tokens on a dark page."""

VARIANT_COLORS: Mapping[str, str] = {MAIN: LIGHT["main"], LOW_LR: LIGHT["low"]}

PANEL_WIDTH = 4.4
"""Inches: at a phone's width the 10 pt text of a panel is about 11 px high."""

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 10,
    "axes.labelcolor": LIGHT["ink"],
    "axes.edgecolor": LIGHT["soft"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.7,
    "text.color": LIGHT["ink"],
    "xtick.color": LIGHT["soft"],
    "ytick.color": LIGHT["soft"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 3.5,
    "ytick.major.size": 3.5,
    "xtick.minor.size": 2,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "twophase_fast",
}
"""matplotlib settings of every figure."""


def panel(height: float = 3.1, width: float = PANEL_WIDTH) -> Figure:
    """Return an empty figure for one panel; constrained layout keeps labels inside it."""
    return Figure(figsize=(width, height), layout="constrained")


def ramp(count: int) -> list[str]:
    """Return `count` colours spread over the sequential ramp, dark to light."""
    if count == 1:
        return [LIGHT[f"ramp{RAMP // 3}"]]
    return [LIGHT[f"ramp{index}"] for index in np.linspace(0, RAMP - 1, count).round().astype(int)]


def css_variable(color: str) -> str:
    """Return `var(--token)` for a colour of the light palette."""
    return f"var(--{_TOKENS[color.lower()]})"


_TOKENS = {color: token for token, color in LIGHT.items()}


def to_svg(figure: Figure, prefix: str) -> str:
    """Return the figure as an `<svg>` element to put inline in a page.

    Ids get the prefix (several figures share one page), palette colours become CSS variables, and everything that
    names an outside address (document type, name spaces, metadata) is taken out.

    Args:
        figure: The figure, drawn under `RC`.
        prefix: Unique in the page.

    Returns:
        The element; it scales to the width of its box.
    """
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", dpi=200, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", text, count=1)
    text = text.replace("xlink:href", "href").replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = text.replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", text)
    return re.sub(r"#[0-9a-f]{6}\b", _variable, text)


def _variable(match: re.Match[str]) -> str:
    token = _TOKENS.get(match.group())
    return f"var(--{token})" if token else match.group()


def css_variables(tokens: Mapping[str, str]) -> str:
    """Return the tokens as CSS custom properties."""
    return " ".join(f"--{name}: {color};" for name, color in tokens.items())
