"""Properties that every op has; the rows of `OP_CASES` supply the ops and their inputs."""

from __future__ import annotations

import functools
import mmap
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch

from tests.ops.helpers import TIERS, force
from twophase_fast import _native
from twophase_fast.ops import _dispatch
from twophase_fast.ops._case import OpCase
from twophase_fast.ops._cases import OP_CASES

ROOT = Path(__file__).parents[2]
CASES = pytest.mark.parametrize("case", OP_CASES, ids=str)
EACH_TIER = pytest.mark.parametrize("tier", [("library", ""), *TIERS], ids="-".join)


def mapped(value, function):
    """Apply `function` to every tensor in `value`, which may be nested."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: mapped(entry, function) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(entry, function) for entry in value)
    return value


def tensors(value) -> list[torch.Tensor]:
    found = []
    mapped(value, found.append)
    return found


def values(case: OpCase, inputs: dict, backend: str | None = None) -> list[torch.Tensor]:
    return case.values(case.call(**mapped(inputs, torch.clone), backend=backend))


def truth(case: OpCase, inputs: dict) -> list[torch.Tensor]:
    """The values in higher precision."""
    if case.truth is not None:
        return case.truth(inputs)
    return values(case, mapped(inputs, torch.Tensor.double), "reference")


def error(got: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    """Largest relative Frobenius error among the values; infinite for a NaN or an error where the truth is zero."""
    worst = 0.0
    for value, expected in zip(got, exact, strict=True):
        assert value.shape == expected.shape
        difference, norm = (value.double() - expected).norm().item(), expected.norm().item()
        relative = difference / norm if norm else (0.0 if difference == 0 else float("inf"))
        worst = max(worst, relative if relative == relative else float("inf"))
    return worst


def budget(case: OpCase, inputs: dict, exact: list[torch.Tensor]) -> float:
    """Twice the error of plain torch in the same dtype, or twice one rounding where torch happens to make less.

    Where the truth is plain torch in float64, a float64 result is measured by the errors of plain torch in float32,
    scaled by the ratio of the roundings: twice for the op and once for the truth.
    """
    plain = values(case, inputs, "reference")
    eps = torch.finfo(plain[0].dtype).eps
    if eps > 1e-10 or case.truth is not None:
        return 2 * max(error(plain, exact), eps)
    single = mapped(inputs, torch.Tensor.float)
    eps_single = torch.finfo(torch.float32).eps
    return 3 * max(error(values(case, single, "reference"), truth(case, single)), eps_single) * eps / eps_single


def skip_unless_backend(case: OpCase, backend: str) -> None:
    if backend not in _dispatch.backends(case.name):
        pytest.skip(f"{case.name} has no {backend} implementation")


@functools.cache
def expected(case: OpCase, index: int, dtype: torch.dtype) -> tuple[dict, list[torch.Tensor], float]:
    """Inputs, truth and budget of a row's set of sizes, kept because every tier asks for them."""
    inputs = case.inputs(case.sizes[index], dtype)
    exact = truth(case, inputs)
    return inputs, exact, budget(case, inputs, exact)


def every(case: OpCase, start: int = 0, step: int = 1):
    """Yield a label, inputs, truth and budget for each dtype and every `step`-th set of sizes."""
    for dtype in case.dtypes:
        for index in range(len(case.sizes))[start::step]:
            yield (dtype, case.sizes[index]), *expected(case, index, dtype)


@CASES
@EACH_TIER
def test_at_most_twice_the_error_of_plain_torch(case, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    skip_unless_backend(case, backend)
    for label, inputs, exact, allowed in every(case):
        assert error(values(case, inputs, backend), exact) <= allowed, label


@CASES
def test_same_dtype_and_shape_from_every_backend(case):
    for dtype in case.dtypes:
        inputs = case.inputs(case.sizes[-1], dtype)
        kinds = {
            backend: [(value.dtype, value.shape, value.requires_grad) for value in values(case, inputs, backend)]
            for backend in _dispatch.backends(case.name)
            if backend != "triton"
        }
        assert all(kind == kinds["reference"] for kind in kinds.values()), kinds


@CASES
@EACH_TIER
def test_strides_do_not_matter(case, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    skip_unless_backend(case, backend)
    for label, inputs, exact, allowed in every(case, step=5):
        for layout in (spread_out, column_major):
            got = case.values(case.call(**mapped(inputs, layout), backend=backend))
            assert error(got, exact) <= allowed, (label, layout.__name__)


def spread_out(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, every other element of a larger tensor in each axis, with NaN in between."""
    room = tensor.new_full([2 * size + 1 for size in tensor.shape], torch.nan)
    view = room[tuple(slice(1, None, 2) for _ in tensor.shape)]
    return view.copy_(tensor)


def column_major(tensor: torch.Tensor) -> torch.Tensor:
    """The same values with the axes in memory the other way round."""
    axes = list(range(tensor.ndim))[::-1]
    return tensor.permute(axes).clone(memory_format=torch.contiguous_format).permute(axes)


@CASES
@EACH_TIER
def test_inputs_may_lie_in_memory_that_cannot_be_written(case, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    skip_unless_backend(case, backend)
    for label, inputs, exact, allowed in every(case, start=-1):
        locked = {name: mapped(value, torch.clone if name == "out" else read_only) for name, value in inputs.items()}
        result = case.call(**locked, backend=backend)
        assert error(case.values(result), exact) <= allowed, label
        results = [result] if isinstance(result, torch.Tensor) else case.values(result)
        given = {tensor.data_ptr() for name, value in locked.items() if name != "out" for tensor in tensors(value)}
        assert not given & {tensor.data_ptr() for tensor in results if tensor.numel()}


def read_only(tensor: torch.Tensor) -> torch.Tensor:
    """The same values on pages mapped for reading: writing to them ends the process."""
    if not tensor.numel():
        return tensor
    with tempfile.TemporaryFile() as file:
        file.write(tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        file.flush()
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns that the tensor cannot be written
        return torch.frombuffer(pages, dtype=tensor.dtype).view(tensor.shape)


@CASES
def test_repeats_are_bitwise_equal(case):
    for dtype in case.dtypes:
        for sizes in case.sizes[-3:]:
            inputs = case.inputs(sizes, dtype)
            first, second = values(case, inputs), values(case, inputs)
            assert all(same_bits(a, b) for a, b in zip(first, second)), sizes


@CASES
def test_threads_do_not_matter(case, restore_threads):
    for label, inputs, exact, allowed in every(case, start=-4):
        runs = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(values(case, inputs))
            assert error(runs[-1], exact) <= allowed, (label, threads)
        if case.same_for_all_threads and _native.missing() is None:
            assert all(same_bits(a, b) for run in runs for a, b in zip(run, runs[0])), label


@pytest.fixture
def restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.nan_to_num(0.5), b.nan_to_num(0.5)) and torch.equal(a.isnan(), b.isnan())


@CASES
def test_no_gradient_leaves_an_op(case):
    inputs = case.inputs(case.sizes[3], torch.float64)
    wanting = {
        name: value if name == "out" else mapped(value, lambda t: t.clone().requires_grad_(t.is_floating_point()))
        for name, value in inputs.items()
    }
    got = case.values(case.call(**wanting))
    assert not any(value.requires_grad for value in got)


@CASES
@pytest.mark.parametrize("backend", ["", "reference"])
def test_opcheck(case, backend):
    pytest.importorskip("expecttest", reason="opcheck needs it")
    op = getattr(torch.ops.twophase_fast, case.name).default
    inputs = case.inputs(case.sizes[3], torch.float32)
    torch.library.opcheck(op, (*case.operands(mapped(inputs, torch.clone)), backend))


@CASES
def test_compiles_as_one_graph(case):
    inputs = case.inputs(case.sizes[3], torch.float32)
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager")
    got = case.values(compiled(**mapped(inputs, torch.clone)))
    assert all(same_bits(a, b) for a, b in zip(got, values(case, inputs)))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc poisons memory on request")
def test_poisoned_memory_does_not_show():
    """A process whose fresh memory holds 0x7f7f7f7f (3.4e38, 1.4e306 as a double) gets the same results."""
    program = (
        "from tests.ops.test_op_properties import *\n"
        "torch.set_num_threads(2)\n"
        "assert torch.empty(1000)[100] > 1e38\n"
        "for case in OP_CASES:\n"
        "    for label, inputs, exact, allowed in every(case, step=8):\n"
        "        assert error(values(case, inputs), exact) <= allowed, (case.name, label)\n"
    )
    environment = {**os.environ, "MALLOC_PERTURB_": "128", "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
