"""Ahead-of-time compilation without a GPU: no spills, shared memory that fits, wgmma where it is promised.

A sample runs always, every configuration of every op in `make test-full`.
"""

import pytest

pytest.importorskip("triton")

from twophase_fast.ops._triton import aot

PAIRS = [(row, target) for row in aot.rows() for target in row.targets]


def sample() -> list[tuple[aot.AotRow, str]]:
    """The first row of every kernel on every target."""
    first: dict[tuple[str, str, str], tuple[aot.AotRow, str]] = {}
    for row, target in PAIRS:
        first.setdefault((row.op, row.kernel.__name__, target), (row, target))
    return list(first.values())


def assert_fits(row: aot.AotRow, target: str) -> None:
    result = aot.inspect(row, target)
    assert result.spills == 0, result
    assert result.shared <= aot.TARGETS[target].shared_limit, result
    if row.wgmma and target == "sm_90":
        assert result.loop_wgmma, result


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
