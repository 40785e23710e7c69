"""The plot of README.md about how time grows, made from the rows of `--suite scaling`."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

PLOT = Path(__file__).parent.parent / "docs" / "scaling.svg"
LABELS = {"samples": "samples N", "width": "width of the hidden layers"}
COLORS = ("#1b6ca8", "#c8553d", "#3f7d4e", "#7a5195")
Row = dict[str, Any]


def timed_series(rows: list[Row], axis: str) -> dict[str, list[Row]]:
    """Timed rows of an axis by series, in the order in which they grow."""
    mine = [row for row in rows if row["axis"] == axis and row["status"] == "timed"]
    titles = dict.fromkeys(row["series"] for row in mine)
    return {
        title: sorted((row for row in mine if row["series"] == title), key=lambda r: r["value"]) for title in titles
    }


def slope(rows: list[Row], field: str = "seconds") -> float | None:
    """Exponent of the growth over the last doubling: log(time ratio) / log(size ratio)."""
    known = [row for row in rows if row.get(field)]
    if len(known) < 2:
        return None
    before, last = known[-2:]
    return math.log(last[field] / before[field]) / math.log(last["value"] / before["value"])


def scaling_plot(rows: list[Row], path: Path) -> None:
    """Write the plot: points measured, dashed lines predicted by the plan where it predicts seconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes_wanted = [axis for axis in LABELS if timed_series(rows, axis)]
    settings = {"svg.hashsalt": "twophase_fast", "font.size": 9, "axes.grid": True, "grid.color": "#e4e4e4"}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **settings}):
        size = (4.6 * max(1, len(axes_wanted)), 3.6)
        figure, panels = pyplot.subplots(1, max(1, len(axes_wanted)), figsize=size, squeeze=False, layout="constrained")
        for axis, panel in zip(axes_wanted, panels[0]):
            _panel(panel, timed_series(rows, axis), LABELS[axis])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)


def _panel(panel: Any, series: dict[str, list[Row]], label: str) -> None:
    values = sorted({row["value"] for rows in series.values() for row in rows})
    for color, (title, rows) in zip(COLORS, series.items()):
        panel.plot([r["value"] for r in rows], [r["seconds"] for r in rows], "o-", color=color, ms=4, label=title)
        planned = [(r["value"], r["predicted"]) for r in rows if r.get("predicted")]
        if planned:
            panel.plot(*zip(*planned), "--", color=color, lw=1, alpha=0.8)
    if any(r.get("predicted") for rows in series.values() for r in rows):
        panel.plot([], [], "--", color="#555555", lw=1, label="predicted by plan()")
    panel.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds (median)")
    panel.set_xticks(values, [str(value) for value in values])
    panel.minorticks_off()
    panel.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    scaling_plot(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["scaling"], PLOT)
