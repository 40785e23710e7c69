"""This revision against another (`--base-root`): the same rows, by turns, wrong results not timed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

from benchmarks import accuracy, base, workloads
from benchmarks.child import ROOT, Child, ChildError
from benchmarks.workloads import Workload
from twophase_fast import ops
from twophase_fast.ops import _workloads
from twophase_fast.ops._workloads import OpWorkload

PRECISIONS = {"highest": accuracy.WRONG, "high": accuracy.WRONG_HIGH}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Kernels at both precisions, and the ops that return something new."""
    suite = metafunc.config.getoption("--suite")
    if "precision" in metafunc.fixturenames:
        pairs = [(row, precision) for row in workloads.of_suite(suite) for precision in PRECISIONS]
        metafunc.parametrize(("row", "precision"), pairs, ids=[f"{row.name}-{name}" for row, name in pairs])
    else:
        work = [work for work in _workloads.of_suite(suite) if not work.op.endswith("_")]
        metafunc.parametrize("work", work, ids=[row.label for row in work])


@pytest.fixture
def sides(request: pytest.FixtureRequest):
    """A child per revision: ours, and the base with a cache of its own."""
    root = request.config.getoption("--base-root")
    if root is None:
        pytest.skip("needs --base REV")
    threads = torch.get_num_threads()
    with base.side(ROOT, threads) as ours, base.side(Path(root), threads, Path(root, ".cache")) as other:
        yield ours, other


def _checked(child: Child, request: dict, target: Path, error_of, limit: float, row: dict, name: str) -> None:
    """Compute once; note the error, and stop where it is not rounding."""
    child.ask(target=str(target), **request)
    row[name] = error_of(torch.load(target))
    if row[name] > limit:
        row["status"] = "wrong"
        pytest.fail(f"{row['name']}: {name} is {row[name]:.1e}; not timed")


def _compare(row: dict, sides, request: dict, folder: Path, error_of, limit: float, seconds: float) -> None:
    ours, other = sides
    _checked(ours, request, folder / "ours.pt", error_of, limit, row, "error")
    try:
        _checked(other, request, folder / "base.pt", error_of, limit, row, "base_error")
    except ChildError as error:
        row.update(status="refuses", reason=str(error)[:200])
        pytest.skip(f"the base refuses: {row['reason']}")
    row.update(status="timed", **base.alternate(ours, other, seconds))


def test_kernel(row: Workload, precision: str, sides, rows, tmp_path, request):
    """One workload at one precision."""
    result = {"name": row.name, "precision": precision, "status": "failed"}
    rows.base.append(result)
    truth = accuracy.truth_of(row, *row.build())
    asked = {"do": "kernel", "workload": row.name, "precision": precision}
    limit = PRECISIONS[precision]
    _compare(result, sides, asked, tmp_path, truth.error, limit, request.config.getoption("--seconds"))


def test_op(work: OpWorkload, sides, rows, tmp_path, request):
    """One op at one size, by the backend that each revision chooses."""
    result = {"name": str(work), "precision": "highest", "status": "failed"}
    rows.base.append(result)
    inputs = work.case.inputs(work.sizes, torch.float32)
    torch.save(inputs, tmp_path / "inputs.pt")
    wide = pytree.tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
    truth = work.case.values(work.case.call(**wide, backend="reference"))

    def error_of(found) -> float:
        values = work.case.values(ops.PairMoments(**found) if isinstance(found, dict) else found)
        return max(accuracy.relative_error(value, true) for value, true in zip(values, truth))

    asked = {"do": "op", "op": work.op, "inputs": str(tmp_path / "inputs.pt")}
    _compare(result, sides, asked, tmp_path, error_of, accuracy.WRONG, request.config.getoption("--seconds"))
