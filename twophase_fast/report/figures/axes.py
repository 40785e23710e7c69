"""Axes: scales and tick labels that stay readable at a phone's width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from twophase_fast.report.data import Array
from twophase_fast.report.numbers import power_of_ten, pretty

LOG_SPAN = 15.0
"""Values whose largest is at least this many times the smallest are drawn on a log axis."""

_LABEL_GAP = 0.085
"""Smallest distance of two x labels of three digits, as a share of the axis."""


def spans_decades(values: Iterable[float]) -> bool:
    """Return whether the positive values span enough to want a log axis (values of 0 are left out)."""
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) >= LOG_SPAN * min(positive)


def signed_root(x: Array) -> Array:
    """Return sign(x)·√|x|: spreads early steps without losing step 0, as a log axis would."""
    return np.sign(x) * np.sqrt(np.abs(x))


def signed_square(x: Array) -> Array:
    """Return the inverse of `signed_root`."""
    return np.sign(x) * np.square(x)


def step_axis(ax: Axes, steps: Sequence[int], label: str) -> None:
    """Give the x axis a square-root scale with a tick at every step and labels where they do not collide."""
    ax.set_xscale("function", functions=(signed_root, signed_square))
    last = max(steps, default=1) or 1
    ax.set_xlim(-last * 0.0012, last * 1.05)
    ax.xaxis.set_major_locator(FixedLocator(list(steps)))
    kept = _kept(signed_root(np.asarray(steps, dtype=float)), [len(str(step)) for step in steps])
    labelled = {steps[index] for index in kept}
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}" if round(x) in labelled else ""))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(label)


def _kept(places: Array, lengths: Sequence[int]) -> list[int]:
    """Return the indices whose labels fit: first and last always, the others from the left."""
    if len(places) < 2:
        return list(range(len(places)))
    gap = _LABEL_GAP / 3 * float(places[-1] - places[0])
    last, kept = len(places) - 1, [0]
    for index in range(1, last):
        fits_left = places[index] - places[kept[-1]] >= gap * max(lengths[index], 2)
        if fits_left and places[last] - places[index] >= gap * lengths[last]:
            kept.append(index)
    return [*kept, last]


def linear_steps(ax: Axes, label: str = "step (iterations)") -> None:
    """Give the x axis a linear scale from 0 with few round labels."""
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    ax.set_xlabel(label)


def value_axis(ax: Axes, values: Iterable[float], label: str, *, linear: bool = False, zero: bool = True) -> None:
    """Scale the y axis to the values: log where they span decades, else linear (from 0 if `zero`)."""
    finite = [value for value in values if math.isfinite(value)]
    if not linear and spans_decades(finite) and min(finite) >= 0:
        _log_axis(ax, [value for value in finite if value > 0])
    else:
        _linear_axis(ax, finite, zero)
    ax.set_ylabel(label, rotation_mode="anchor")


def _log_axis(ax: Axes, values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    ax.set_yscale("log")
    ax.set_ylim(low / 1.4, high * 1.4)
    ax.yaxis.set_major_locator(LogLocator(10, subs=log_subdivisions(low, high), numticks=9))
    ax.yaxis.set_major_formatter(FuncFormatter(log_label))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_locator(NullLocator())


def log_subdivisions(low: float, high: float) -> tuple[int, ...]:
    """Return the multiples of each power of ten to label: fewer, the more decades there are."""
    span = high / low
    return (1, 2, 5) if span < 100 else (1, 3) if span < 2000 else (1,)


def log_label(value: float, _: object = None) -> str:
    """Return a tick label: "0.05", "1", "10⁻⁴", "2×10⁻⁴"."""
    if value <= 0:
        return ""
    exponent = math.floor(math.log10(value) + 1e-9)
    if -2 <= exponent <= 3:
        return f"{value:g}"
    mantissa = round(value / 10.0**exponent)
    return power_of_ten(exponent) if mantissa == 1 else f"{mantissa}×{power_of_ten(exponent)}"


def _linear_axis(ax: Axes, values: Sequence[float], zero: bool) -> None:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    bottom = 0.0 if zero and low >= 0 else low - 0.06 * (high - low)
    top = high + 0.08 * ((high - bottom) or 1.0)
    ax.set_ylim(bottom, top)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: "0" if y == 0 else _tick(y)))


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−") if 1e-3 <= abs(value) < 1e4 else pretty(value, 2)
