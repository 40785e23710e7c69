"""Options of the suites, and one JSON file of rows at the end (`--rows`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.peers import OURS, OURS_HIGH
from benchmarks.workloads import of_suite

SUITES = ("default", "large", "smoke", "scaling")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--suite`, `--rows`, `--base-root` and `--seconds`."""
    parser.addoption("--suite", default="default", choices=SUITES, help="which workloads")
    parser.addoption("--rows", default=None, help="write the rows of the tables to this JSON file")
    parser.addoption("--base-root", default=None, help="checkout of another revision, built, to compare with")
    parser.addoption("--seconds", default=3.0, type=float, help="time to spend on repeats of one measurement")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One kernel test per workload of the suite and peer."""
    if {"workload", "peer"} <= set(metafunc.fixturenames):
        rows = of_suite(metafunc.config.getoption("--suite"))
        pairs = [(row, peer) for row in rows for peer in (OURS, OURS_HIGH, *row.peers)]
        metafunc.parametrize(("workload", "peer"), pairs, ids=[f"{row.name}-{peer}" for row, peer in pairs])


class Rows:
    """Rows of all tables, collected over the session."""

    def __init__(self) -> None:
        self.entk: list[dict] = []
        self.ops: list[dict] = []
        self.base: list[dict] = []
        self.scaling: list[dict] = []
        self.peaks: dict[str, float] = {}


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest):
    """Collector of rows; written to `--rows` when the session ends."""
    collected = Rows()
    yield collected
    target = request.config.getoption("--rows")
    if target:
        Path(target).write_text(json.dumps(vars(collected)))


@pytest.fixture
def timed(benchmark, request: pytest.FixtureRequest):
    """Time a function that has been called before, by the median of at most 30 rounds.

    `once` is how long that earlier call took. As many rounds as fit into `--seconds`, at least one; where one call
    takes more than three times that, the earlier call is the measurement.
    """
    budget = request.config.getoption("--seconds")

    def measure(function, once: float) -> dict[str, float]:
        if once > 3 * budget:
            return {"seconds": once, "best": once, "rounds": 1}
        rounds = int(min(30, max(1, budget // max(once, 1e-9))))
        benchmark.pedantic(function, rounds=rounds, iterations=1)
        stats = benchmark.stats.stats
        return {"seconds": stats.median, "best": stats.min, "rounds": rounds}

    return measure
