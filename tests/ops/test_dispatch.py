"""Which backend runs, why another does not, and the state of the process the C++ kernels run in."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from twophase_fast import _native, ops
from twophase_fast._types import BackendError, InputError
from twophase_fast.ops import _dispatch

ROOT = Path(__file__).parents[2]
needs_extension = pytest.mark.skipif(_native.missing() is not None, reason="the C++ extension is not built")


def python(program: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess:
    """Run a program in a fresh interpreter."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout, env=variables, cwd=ROOT
    )


@needs_extension
def test_the_first_backend_that_fits_is_taken():
    x = torch.ones(2, 3)
    assert _dispatch.choose("gram", None, x, None, "highest") == "cpu"
    assert _dispatch.choose("gram", None, x.to("meta"), None, "highest") == "reference"
    assert _dispatch.choose("gram", "reference", x, None, "highest") == "reference"


def test_the_environment_names_a_backend_for_all_ops(monkeypatch):
    x = torch.ones(2, 3)
    monkeypatch.setenv("TWOPHASE_BACKEND", "reference")
    assert _dispatch.choose("gram", None, x, None, "highest") == "reference"
    monkeypatch.setenv("TWOPHASE_BACKEND", "triton")
    with pytest.raises(BackendError, match="backend 'triton' does not take these inputs"):
        ops.gram(x)


@needs_extension
def test_a_failing_dispatch_gives_every_reason_of_every_backend():
    with pytest.raises(BackendError) as caught:
        _dispatch.choose("gram", "cpu", torch.ones(2, 3, dtype=torch.int8, device="meta"), None, "highest")
    lines = str(caught.value).splitlines()
    assert lines[0] == "gram: backend 'cpu' does not take these inputs"
    assert lines[1].startswith("  triton: ")
    assert lines[2] == "  cpu: tensors are on meta; dtype torch.int8"
    assert lines[3] == "  reference: takes them"
    assert lines[4] == "pass backend=None to take the first that fits"


def test_an_unknown_backend_is_refused():
    known = "'triton', 'cpu', 'library', 'reference'"
    with pytest.raises(InputError, match=f"backend='cuda' is unknown; use None or one of {known}"):
        ops.gram(torch.ones(2, 3), backend="cuda")


def test_where_a_library_serves_gpus_forcing_triton_means_it(monkeypatch):
    g, weight = torch.ones(1, 1, 2, 3), torch.ones(3, 2)
    out = torch.empty(1, 1, 2, 2)
    monkeypatch.setenv("TWOPHASE_BACKEND", "triton")
    arguments = (out, g, weight, None, False)
    assert _dispatch.choose("linear_input_grad_", None, *arguments) == "library"
    assert torch.equal(ops.linear_input_grad_(out, g, weight), torch.full_like(out, 3))
    with pytest.raises(BackendError, match="triton: linear_input_grad_ has no triton implementation"):
        ops.linear_input_grad_(out, g, weight, backend="triton")
    with pytest.raises(BackendError, match="gram has no library implementation"):
        _dispatch.choose("gram", "library", g[0, 0], None, "highest")


def test_a_library_serves_gpus_only_where_there_is_no_kernel():
    assert {op for op in _dispatch.ops() if "library" in _dispatch.backends(op)} == {
        "batched_product_",
        "conv_input_grad",
        "conv_input_grad_",
        "linear_input_grad_",
    }
    meta = [torch.ones(1, 1, 2, 2, device="meta") for _ in range(2)]
    assert _dispatch.choose("linear_input_grad_", None, *meta, meta[0][0, 0], None, False) == "library"


def test_every_op_has_a_reference():
    assert all("reference" in _dispatch.backends(name) for name in _dispatch.ops())


@needs_extension
def test_the_environment_caps_the_instruction_set(monkeypatch):
    assert _native.isa() == _native.available_isas()[-1]
    monkeypatch.setenv("TWOPHASE_ISA", "scalar")
    assert _native.isa() == "scalar"
    monkeypatch.setenv("TWOPHASE_ISA", "amx")
    assert _native.isa() == _native.available_isas()[-1]
    monkeypatch.setenv("TWOPHASE_ISA", "mmx")
    with pytest.raises(InputError, match="TWOPHASE_ISA='mmx'"):
        ops.gram(torch.ones(2, 3))


def test_tiers_ascend_from_scalar():
    tiers = _native.available_isas()
    assert list(tiers) == [isa for isa in _native.ISAS if isa in tiers]
    assert not tiers or tiers[0] == "scalar"


WITHOUT_EXTENSION = """
import sys, warnings
sys.modules["twophase_fast._C"] = None
import torch
from twophase_fast import ops
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    x = torch.ones(2, 3)
    assert ops.gram(x).tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert ops.pair_moments(x, 2 * x).dd.tolist() == [6.0]
    assert ops.one_minus_cos(x, 2 * x) == 0.0
print(len(caught), caught[0].category.__name__, caught[0].message)
try:
    ops.gram(x, backend="cpu")
except Exception as error:
    print(error)
"""


def test_without_the_extension_the_reference_runs_and_says_so_once():
    finished = python(WITHOUT_EXTENSION)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("1 RuntimeWarning twophase_fast: the C++ extension is not available")
    assert "Install a C++ compiler" in finished.stdout
    assert "cpu: the C++ extension is not available" in finished.stdout


AFTER_FORK = """
import os, sys, torch
from twophase_fast import _native, ops
torch.set_num_threads(2)
x = torch.randn(300, 4000)
runs = [[torch.randn(100_000)] for _ in range(3)]
results = lambda: [t.numpy().tobytes() for t in (ops.gram(x), ops.pair_moments(runs).xy)]
expected = results()  # starts the threads
assert _native.threads() == 2
child = os.fork()
if child == 0:
    os._exit(0 if results() == expected and _native.threads() == 1 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@needs_extension
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_runs_serially_and_does_not_hang():
    assert python(AFTER_FORK, timeout=60).returncode == 0


@needs_extension
def test_calls_from_several_threads_do_not_mix():
    inputs = [torch.randn(50 + i, 9000, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    expected = [ops.gram(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(pool.map(ops.gram, inputs), expected))


OPENMP_RUNTIMES = """
import torch
from twophase_fast import _native, ops
ops.gram(torch.randn(300, 4000))
maps = open("/proc/self/maps").read().split()
print("\\n".join(sorted({path for path in maps if any(name in path for name in ("libgomp", "libiomp", "libomp"))})))
"""


@needs_extension
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_extension_shares_the_openmp_runtime_of_torch():
    finished = python(OPENMP_RUNTIMES)
    assert finished.returncode == 0, finished.stderr
    runtimes = finished.stdout.split()
    assert len(runtimes) == 1
    assert Path(torch.__file__).parent in Path(runtimes[0]).parents or "torch" in runtimes[0]
