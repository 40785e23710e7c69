"""Ahead-of-time compilation without a GPU: no spills, shared memory that fits, wgmma where it is promised.

A sample runs always, every configuration of every op in `make test-full`.
"""

import dataclasses
import json

import pytest

pytest.importorskip("triton")

from benchmarks import triton_report
from twophase_fast.ops._triton import aot

PAIRS = [(row, target) for row in aot.rows() for target in row.targets]


def sample() -> list[tuple[aot.AotRow, str]]:
    """The first row of every kernel on every target."""
    first: dict[tuple[str, str, str], tuple[aot.AotRow, str]] = {}
    for row, target in PAIRS:
        first.setdefault((row.op, row.kernel.__name__, target), (row, target))
    return list(first.values())


def assert_fits(row: aot.AotRow, target: str) -> None:
    assert not triton_report.broken(row, aot.inspect(row, target))


@pytest.mark.parametrize(("row", "target"), sample(), ids=str)
def test_a_sample_compiles_without_spills(row, target):
    assert_fits(row, target)


@pytest.mark.full
@pytest.mark.parametrize(("row", "target"), PAIRS, ids=str)
def test_every_configuration_compiles_without_spills(row, target):
    assert_fits(row, target)


def test_rows_are_told_apart():
    names = [str(row) for row in aot.rows()]
    assert len(names) == len(set(names))


def test_broken_promises_are_found():
    row = dataclasses.replace(aot.rows()[0], wgmma=True)
    good = aot.AotResult("gram", "k", "l", "w", "sm_90", 255, 0, 232448, True, True, True)
    assert triton_report.broken(row, good) == []
    bad = dataclasses.replace(good, spills=8, shared=232449, loop_wgmma=False)
    assert len(triton_report.broken(row, bad)) == 3
    assert len(triton_report.broken(row, dataclasses.replace(bad, target="gfx942"))) == 2


def test_the_committed_report_has_these_rows():
    """If it fails: `python -m benchmarks.triton_report`, and commit what it wrote."""
    committed = json.loads((triton_report.RESULTS / "triton_aot.json").read_text())["rows"]
    fields = ("op", "kernel", "label", "launch", "target")
    expected = [(row.op, row.kernel.__name__, row.label, str(row.launch), target) for row, target in PAIRS]
    assert [tuple(entry[name] for name in fields) for entry in committed] == expected
    assert not any(entry["spills"] for entry in committed)
