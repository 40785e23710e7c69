"""The ops alone: each backend that is there, against plain torch and against what the machine can do."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pytest
import torch
from torch.utils import _pytree as pytree

from benchmarks import op_rivals, peaks
from benchmarks.accuracy import WRONG_HIGH, relative_error
from twophase_fast import _native, ops
from twophase_fast.ops import _dispatch
from twophase_fast.ops._workloads import DEFAULT, SMOKE, OpWorkload, of_suite

SLACK = 1e-7  # a backend may be twice as wrong as plain torch, and this much in float32
ROWS = {row.label: row for row in (*DEFAULT, *SMOKE)}


@dataclass(frozen=True)
class Contender:
    """Who computes a row.

    Attributes:
        name: `cpu`, `cpu high`, `reference`, or a formulation in plain torch.
        backend: Ours, or None for a formulation.
        precision: Of ours.
        rival: The formulation, or None for ours.
    """

    name: str
    backend: str | None = None
    precision: str = "highest"
    rival: op_rivals.Rival | None = None


def contenders(work: OpWorkload) -> list[Contender]:
    """Our backends, "high" where the op takes a precision, and the formulations in plain torch."""
    found = [Contender(backend, backend) for backend in _dispatch.backends(work.op)]
    if "precision" in inspect.signature(getattr(ops, work.op)).parameters:
        fast = [one for one in found if one.backend != "reference"]
        found += [Contender(f"{one.name} high", one.backend, "high") for one in fast]
    return found + [Contender(rival.name, rival=rival) for rival in op_rivals.rivals(work.op, work.sizes)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per op and size, and contender."""
    work = of_suite(metafunc.config.getoption("--suite"))
    pairs = [(row, contender) for row in work for contender in contenders(row)]
    metafunc.parametrize(("work", "contender"), pairs, ids=[f"{row.label}-{one.name}" for row, one in pairs])


@pytest.fixture(scope="session")
def machine(rows, request) -> dict[str, float]:
    """GEMM and bandwidth peaks of this run."""
    small = request.config.getoption("--suite") == "smoke"
    rows.peaks["gemm_flops"] = peaks.gemm_flops(256 if small else 2048)
    rows.peaks["bf16_flops"] = peaks.gemm_flops(256 if small else 2048, torch.bfloat16)
    rows.peaks["read_bandwidth"] = peaks.read_bandwidth(8 if small else 256)
    return rows.peaks


def _inputs(work: OpWorkload, precision: str = "highest") -> dict:
    inputs = work.case.inputs(work.sizes, torch.float32)
    if "precision" in inputs:
        return {**inputs, "precision": precision}
    assert precision == "highest", f"the benchmark's row of {work.op} makes no precision, which the op now takes"
    return inputs


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


@lru_cache(maxsize=1)
def _truth(label: str) -> list[torch.Tensor]:
    work = ROWS[label]
    if work.case.truth:
        return work.case.truth(_inputs(work))
    wide = pytree.tree_map_only(torch.Tensor, _widened, _inputs(work))
    return work.case.values(work.case.call(**wide, backend="reference"))


def _error(values: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]) -> float:
    """Largest relative error over the values of a result."""
    return max(relative_error(value.nan_to_num(), true.nan_to_num()) for value, true in zip(values, truth, strict=True))


@lru_cache(maxsize=1)
def _reference_error(label: str) -> float:
    work = ROWS[label]
    return _error(work.case.values(work.case.call(**_inputs(work), backend="reference")), _truth(label))


def _call(work: OpWorkload, contender: Contender, inputs: dict) -> Callable[[], object]:
    if contender.rival is not None:
        return lambda: contender.rival.call(inputs)
    return lambda: work.case.call(**inputs, backend=contender.backend)


def _checked_error(work: OpWorkload, contender: Contender) -> tuple[float, float]:
    """The error of one call, and the largest that is not a mistake."""
    result = _call(work, contender, _inputs(work, contender.precision))()
    truth, rival = _truth(work.label), contender.rival
    if rival is not None:
        picked = truth if rival.picks is None else [truth[index] for index in rival.picks]
        return _error(rival.values(result), picked), rival.wrong
    limit = WRONG_HIGH if contender.precision == "high" else 2 * _reference_error(work.label) + SLACK
    return _error(work.case.values(result), truth), limit


@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
def test_op(work: OpWorkload, contender: Contender, machine, timed, rows, benchmark):
    """One contender on one op at one size: not for it, wrong, or timed."""
    inputs = _inputs(work, contender.precision)
    if contender.rival is None:
        reasons = _dispatch.reasons(work.op, contender.backend, *work.case.operands(inputs))
        if reasons:
            pytest.skip(f"{contender.name}: {'; '.join(reasons)}")
    error, limit = _checked_error(work, contender)
    row = {"op": work.op, "sizes": dict(work.sizes), "backend": contender.name, "error": error}
    if contender.name == "cpu high":
        row["matrix_unit"] = _native.matrix_unit()  # None: it runs as "highest"
    rows.ops.append(row)
    if error > limit:
        row["status"] = "wrong"
        pytest.fail(f"{work} by {contender.name} is wrong: relative error {error:.1e}; not timed")
    call = _call(work, contender, inputs)
    started = time.perf_counter()
    call()
    once = time.perf_counter() - started
    row.update(status="timed", **timed(call, once))
    row.update(_shares(work, row["seconds"], machine))
    benchmark.extra_info.update(row)


def _shares(work: OpWorkload, seconds: float, machine: dict[str, float]) -> dict[str, float]:
    shares = {"of_bandwidth": work.bytes(work.sizes) / seconds / machine["read_bandwidth"]}
    if work.flops is not None:
        shares["of_gemm"] = work.flops(work.sizes) / seconds / machine["gemm_flops"]
    return shares
