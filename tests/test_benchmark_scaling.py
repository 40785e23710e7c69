"""The scaling suite: its points, its rows, its plot."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import plots, readme, run
from benchmarks.scaling import POINTS, next_seconds

ROWS = [
    *({"series": "A", "axis": "samples", "value": 2**i, "status": "timed", "seconds": 0.1 * 4**i,
       "predicted": 0.05 * 2**i, "error": 1e-7} for i in range(4, 7)),
    {"series": "A", "axis": "samples", "value": 128, "status": "not tried", "reason": "too long"},
    *({"series": "B", "axis": "width", "value": 2**i, "status": "timed", "seconds": 2.0**i, "predicted": None,
       "error": 1e-7} for i in (8, 7)),
]  # fmt: skip


def test_points_double_and_are_of_their_size():
    names = [point.workload.name for point in POINTS]
    assert len(set(names)) == len(names)
    for before, after in pairwise(POINTS):
        assert after.series != before.series or after.value == 2 * before.value
    for point in (POINTS[0], POINTS[-1]):
        model, x = point.workload.build()
        assert len(x) == (point.value if point.axis == "samples" else 64)
        assert point.axis == "samples" or model[1].out_features == point.value


def test_the_next_time_is_guessed_from_the_growth():
    assert next_seconds([]) == 0
    assert next_seconds([3]) == 6
    assert next_seconds([1, 1.5]) == 3
    assert next_seconds([1, 3]) == 9


def test_series_are_sorted_and_slopes_are_exponents():
    series = plots.timed_series(ROWS, "samples")["A"]
    assert plots.slope(series) == pytest.approx(2)
    assert plots.slope(series, "predicted") == pytest.approx(1)
    wide = plots.timed_series(ROWS, "width")["B"]
    assert [row["value"] for row in wide] == [128, 256]
    assert plots.slope(wide, "predicted") is None
    assert plots.slope(wide[:1]) is None


def test_the_plot_shows_measured_and_predicted(tmp_path):
    target = tmp_path / "new" / "scaling.svg"
    plots.scaling_plot(ROWS, target)
    first = target.read_text()
    assert first.lstrip().startswith("<?xml")
    for words in ("samples N", "width of the hidden layers", "seconds (median)", "predicted by plan()"):
        assert f"<!-- {words} -->" in first
    plots.scaling_plot(ROWS, target)
    assert target.read_text() == first
    without = [{**row, "predicted": None} for row in ROWS]
    plots.scaling_plot(without, target)
    assert "predicted by plan()" not in target.read_text()


def test_the_table_has_every_series():
    environment = {
        "time": "2026-01-02T03:04:05+00:00",
        "hardware": {"processor": "CPU", "cpu_capability": "AVX2"},
        "versions": {"torch": "2", "python": "3"},
    }
    results = {"environment": environment, "threads": 2, "peaks": {}, "entk": [], "ops": [], "scaling": ROWS}
    text = readme.tables(results)
    assert "](docs/scaling.svg)" in text
    assert "| A, samples N | 16: 26 s, 32: 1e+02 s, 64: 4.1e+02 s | 2.00 | 1.00 |" in text
    assert "| B, width of the hidden layers | 128: 1.3e+02 s, 256: 2.6e+02 s | 1.00 | – |" in text


def test_a_point_is_timed_and_written(tmp_path):
    target = tmp_path / "rows.json"
    options = run._options(["--suite", "scaling", "--seconds", "0", "-k", "mlp-width-128"])
    assert run._pytest(options, target) == 0
    (row,) = json.loads(target.read_text())["scaling"]
    assert (row["status"], row["axis"], row["value"]) == ("timed", "width", 128)
    assert row["error"] < 1e-5
    assert row["seconds"] > 0
