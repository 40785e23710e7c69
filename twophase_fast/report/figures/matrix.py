"""The matrix S(i, j) = S(K_i, K_j) over all probe steps as a heat map."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from twophase_fast.report import cone_series as cone
from twophase_fast.report.data import Array, Run, rows
from twophase_fast.report.figures.block import Block, Panel, rendered
from twophase_fast.report.numbers import pretty
from twophase_fast.report.style import LIGHT

MAX_LABELS = 9

READING = (
    "Each cell is the kernel distance between two probe steps, mean over seeds; the diagonal is 0 by definition and "
    "left grey. A dark block at the upper right means that late kernels are all close to each other; bright bands at "
    "the left and bottom mean that early kernels differ from everything later. Main and control share a colour scale."
)


def matrix_block(run: Run) -> Block | None:
    """Return the heat maps of every variant and kernel output, or None where no distances were stored."""
    panels = [panel for output in cone.outputs(run) for panel in _panels(run, output)]
    return Block("cone-matrix", "Kernel distance between all probe steps", READING, panels) if panels else None


def _panels(run: Run, output: str) -> list[Panel]:
    """Return main and control side by side for one kernel output, in one colour scale."""
    found = {
        variant: cone.matrix(run, variant, output)
        for variant in run.variants
        if rows(cone.distances(run, variant, output))
    }
    norm = color_scale([values for _, values in found.values()])
    return [_panel(run, variant, output, steps, values, norm) for variant, (steps, values) in found.items()]


def color_scale(matrices: Sequence[Array]) -> Normalize:
    """Return one linear scale from 0 for all matrices."""
    highest = max((float(np.nanmax(matrix)) for matrix in matrices), default=0.0)
    return Normalize(0.0, highest or 1.0)


def paint_matrix(ax: Axes, steps: Sequence[int], values: Array, norm: Normalize) -> AxesImage:
    """Draw the matrix with time running right and up; cells that are 0 or unknown keep the blank colour."""
    shown = np.ma.masked_where(~np.isfinite(values) | (values <= 0), values)
    palette = mpl.colormaps["viridis"].with_extremes(bad=(0, 0, 0, 0))
    image = ax.imshow(shown, cmap=palette, norm=norm, origin="lower", interpolation="nearest")
    ax.grid(False)
    ax.set_facecolor(LIGHT["blank"])
    places = range(0, len(steps), -(-len(steps) // MAX_LABELS))
    labels = [str(steps[place]) for place in places]
    crowded = sum(map(len, labels)) > 22
    ax.set_xticks(places, labels, rotation=90 if crowded else 0)
    ax.set_yticks(places, labels)
    ax.set_xlabel("probe step j (iterations)")
    ax.set_ylabel("probe step i (iterations)", rotation_mode="anchor")
    for side in ax.spines.values():
        side.set_visible(False)
    return image


def add_scale(figure: Figure, image: AxesImage, ax: Axes) -> None:
    """Put a labelled colour bar beside the matrix."""
    bar = figure.colorbar(image, ax=ax, fraction=0.05, pad=0.03)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("S(i, j)", rotation_mode="anchor")
    bar.ax.yaxis.set_major_locator(MaxNLocator(5))


def _panel(run: Run, variant: str, output: str, steps: Sequence[int], values: Array, norm: Normalize) -> Panel:
    def paint(figure: Figure) -> None:
        ax = figure.subplots()
        add_scale(figure, paint_matrix(ax, steps, values, norm), ax)

    title = f"{output} kernel, {run.label(variant)}"
    return Panel(title, rendered(f"matrix-{variant}-{output}", paint, height=3.5), _alt(title, steps, values))


def _alt(title: str, steps: Sequence[int], values: Array) -> str:
    return (
        f"Heat map of S between {len(steps)} probe steps, {title}. First to last step: {pretty(values[0, -1])}; "
        f"the last two steps: {pretty(values[-2, -1])}; the first two: {pretty(values[0, 1])}."
    )
