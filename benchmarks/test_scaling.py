"""How time grows: ours against the number of samples and against width, beside the seconds that the plan predicts."""

from __future__ import annotations

import time
from collections import defaultdict

import pytest

import twophase_fast as tp
from benchmarks import accuracy
from benchmarks.scaling import LIMIT_SECONDS, POINTS, Point, next_seconds


@pytest.fixture(scope="session")
def times() -> dict[tuple[str, str], list[float]]:
    """Seconds of the points of each series so far."""
    return defaultdict(list)


@pytest.mark.parametrize("point", POINTS, ids=[point.workload.name for point in POINTS])
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
def test_scaling(point: Point, times, timed, rows, benchmark):
    """One point: not tried, wrong, or timed."""
    row = {"series": point.series, "axis": point.axis, "value": point.value, "status": "failed"}
    rows.scaling.append(row)
    before = times[point.series, point.axis]
    if next_seconds(before) > LIMIT_SECONDS:
        row.update(status="not tried", reason=f"it would take more than {LIMIT_SECONDS:g} s")
        pytest.skip(row["reason"])
    model, x = point.workload.build()
    row["predicted"] = getattr(tp.plan(model, x), "seconds", None)
    tp.entk(model, x[:2])
    started = time.perf_counter()
    kernel = tp.entk(model, x)
    once = time.perf_counter() - started
    row["error"] = accuracy.truth_of(point.workload, model, x).error(kernel)
    if row["error"] > accuracy.WRONG:
        row["status"] = "wrong"
        pytest.fail(f"{point.workload.name} is wrong: relative error {row['error']:.1e}; not timed")
    del kernel
    row.update(status="timed", **timed(lambda: tp.entk(model, x), once))
    before.append(row["seconds"])
