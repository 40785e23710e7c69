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


def first_rows() -> dict[str, dict[str, aot.AotRow]]:
    """The first row of every kernel on each of its targets; where a row promises wgmma, the first of these on sm_90."""
    first: dict[str, dict[str, aot.AotRow]] = {}
    for row, target in sorted(PAIRS, key=lambda pair: not (pair[0].wgmma and pair[1] == "sm_90")):
        first.setdefault(f"{row.op} {row.kernel.__name__}", {}).setdefault(target, row)
    return first


def sample() -> list[tuple[aot.AotRow, str]]:
    """Every kernel on sm_90 and, in turn, on one of the other targets."""
    others = [target for target in aot.TARGETS if target != "sm_90"]
    chosen = []
    for index, by_target in enumerate(first_rows().values()):
        wanted = ("sm_90", others[index % len(others)])
        chosen += [(by_target[target], target) for target in wanted if target in by_target]
    return chosen


def assert_fits(row: aot.AotRow, target: str) -> None:
    assert not triton_report.broken(row, aot.inspect(row, target))


@pytest.mark.parametrize(("row", "target"), sample(), ids=str)
def test_a_sample_compiles_without_spills(row, target):
    assert_fits(row, target)


@pytest.mark.full
@pytest.mark.parametrize(("row", "target"), PAIRS, ids=str)
def test_every_configuration_compiles_without_spills(row, target):
    assert_fits(row, target)


def of_one(row: aot.AotRow, names: list[str]) -> aot.AotRow:
    """The row as Triton compiles it where these run-time integers are 1: it makes constants of them."""
    return dataclasses.replace(row, arguments={**row.arguments, **dict.fromkeys(names, 1)})


def integers(row: aot.AotRow) -> list[str]:
    return [name for name, value in row.arguments.items() if isinstance(value, str) and value.startswith("i32")]


SM_90 = [row for row, target in sample() if target == "sm_90"]


@pytest.mark.full
@pytest.mark.parametrize("row", SM_90, ids=str)
def test_sizes_of_one_compile(row):
    aot.compile_row(of_one(row, integers(row)), "sm_90")


@pytest.mark.full
@pytest.mark.parametrize("row", SM_90, ids=str)
def test_each_size_of_one_compiles(row):
    for name in integers(row):
        aot.compile_row(of_one(row, [name]), "sm_90")


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
    committed = triton_report.committed()
    assert list(committed) == [triton_report.key(row, target) for row, target in PAIRS]
    assert not any(result.spills for result in committed.values())


def test_the_rows_of_one_op_can_be_replaced(monkeypatch, tmp_path, capsys):
    files = {name: (triton_report.RESULTS / name).read_text() for name in ("triton_aot.json", "triton_aot.md")}
    entries = json.loads(files["triton_aot.json"])
    for entry in entries["rows"]:
        entry["registers"] += 1000
    monkeypatch.setattr(triton_report, "RESULTS", tmp_path)
    (tmp_path / "triton_aot.json").write_text(json.dumps(entries))
    assert triton_report.main(["--op", "symmetrize_", "--save"]) == 0
    assert capsys.readouterr().out.endswith("6 compilations, 0 broken promises\n")
    replaced = [result for result in triton_report.committed().values() if result.registers < 1000]
    assert {result.op for result in replaced} == {"symmetrize_"}
    assert len(replaced) == 6
