"""The ops alone: each backend that is there, against plain torch and against what the machine can do."""

from __future__ import annotations

import time

import pytest
import torch
from torch.utils import _pytree as pytree

from benchmarks import peaks
from benchmarks.accuracy import relative_error
from twophase_fast.ops import _dispatch
from twophase_fast.ops._workloads import OpWorkload, of_suite

SLACK = 1e-7  # a backend may be twice as wrong as plain torch, and this much in float32


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per op and size, and backend that the op has."""
    work = of_suite(metafunc.config.getoption("--suite"))
    pairs = [(row, backend) for row in work for backend in _dispatch.backends(row.op)]
    metafunc.parametrize(("work", "backend"), pairs, ids=[f"{row} {backend}" for row, backend in pairs])


@pytest.fixture(scope="session")
def machine(rows, request) -> dict[str, float]:
    """GEMM and bandwidth peaks of this run."""
    small = request.config.getoption("--suite") == "smoke"
    rows.peaks["gemm_flops"] = peaks.gemm_flops(256 if small else 2048)
    rows.peaks["read_bandwidth"] = peaks.read_bandwidth(8 if small else 256)
    return rows.peaks


def _inputs(work: OpWorkload) -> dict:
    return work.case.inputs(work.sizes, torch.float32)


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _error(work: OpWorkload, backend: str) -> float:
    """Largest relative error over the values of a result."""
    wide = pytree.tree_map_only(torch.Tensor, _widened, _inputs(work))
    truth = (
        work.case.truth(_inputs(work))
        if work.case.truth
        else work.case.values(work.case.call(**wide, backend="reference"))
    )
    values = work.case.values(work.case.call(**_inputs(work), backend=backend))
    return max(relative_error(value.nan_to_num(), true.nan_to_num()) for value, true in zip(values, truth))


def test_op(work: OpWorkload, backend: str, machine, timed, rows, benchmark):
    """One backend of one op at one size: not for it, wrong, or timed."""
    inputs = _inputs(work)
    reasons = _dispatch.reasons(work.op, backend, *work.case.operands(inputs))
    if reasons:
        pytest.skip(f"{backend}: {'; '.join(reasons)}")
    row = {"op": work.op, "sizes": dict(work.sizes), "backend": backend, "error": _error(work, backend)}
    rows.ops.append(row)
    if row["error"] > 2 * _error(work, "reference") + SLACK:
        row["status"] = "wrong"
        pytest.fail(f"{work} on {backend} is wrong: relative error {row['error']:.1e}; not timed")
    started = time.perf_counter()
    work.case.call(**inputs, backend=backend)
    once = time.perf_counter() - started
    row.update(status="timed", **timed(lambda: work.case.call(**inputs, backend=backend), once))
    row.update(_shares(work, row["seconds"], machine))
    benchmark.extra_info.update(row)


def _shares(work: OpWorkload, seconds: float, machine: dict[str, float]) -> dict[str, float]:
    shares = {"of_bandwidth": work.bytes(work.sizes) / seconds / machine["read_bandwidth"]}
    if work.flops is not None:
        shares["of_gemm"] = work.flops(work.sizes) / seconds / machine["gemm_flops"]
    return shares
