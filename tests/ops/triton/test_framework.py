"""What the kernels share: interpreting, precision modes, launch tables, autotuning, assembly; life without Triton."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from twophase_fast import ops, settings
from twophase_fast._types import BackendError, InputError
from twophase_fast.ops._triton import assembly, autotune, backend, modes
from twophase_fast.ops._triton.launch import LaunchTable, launch

pytest.importorskip("triton")
import triton.language as tl

from twophase_fast.ops._triton.dot import dot
from twophase_fast.ops._triton.kernel import kernel

ROOT = Path(__file__).parents[3]


@kernel
def _square(x, BLOCK: tl.constexpr):
    return x * x + tl.zeros((BLOCK,), dtype=tl.float32)


@kernel
def _sum_squares(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, n, BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        total += _square(tl.load(x_ptr + offsets, mask=offsets < n, other=0.0).to(tl.float32), BLOCK)
    tl.store(out_ptr, tl.sum(total, axis=0))


@kernel
def _product(a_ptr, b_ptr, out_ptr, N: tl.constexpr, MODE: tl.constexpr):
    rows = tl.arange(0, N)
    at = rows[:, None] * N + rows[None, :]
    acc = tl.zeros((N, N), dtype=out_ptr.dtype.element_ty)
    tl.store(out_ptr + at, dot(tl.load(a_ptr + at), tl.load(b_ptr + at), acc, MODE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_kernel_runs_on_cpu_tensors_with_helpers_and_library_functions(dtype, interpreted):
    x = torch.randn(37, generator=torch.Generator().manual_seed(0)).to(dtype)
    out = torch.full((1,), torch.nan)
    _sum_squares[(1,)](x, out, 37, BLOCK=16)
    torch.testing.assert_close(out[0], x.float().square().sum())


def test_interpreting_leaves_no_trace(interpreted):
    """The same process compiles afterwards; Triton's interpreter alone would leave its functions in place."""
    before = tl.load, tl.sum, tl.zeros, tl.standard.sum
    _sum_squares[(1,)](torch.ones(5), torch.empty(1), 5, BLOCK=16)
    assert (tl.load, tl.sum, tl.zeros, tl.standard.sum) == before
    with pytest.raises(RuntimeError, match="outside of the scope of a kernel"):
        _square(1.0, 16)


@pytest.mark.parametrize(
    ("mode", "low", "high"),
    [
        ("ieee", 0, 2e-7),
        ("tf32x3", 0, 5e-7),
        ("bf16x3", 1e-7, 1e-5),
        ("tf32", 1e-4, 2e-3),
    ],
)
def test_each_mode_rounds_as_it_says(mode, low, high, interpreted):
    """Reduced modes are at least as wrong as `low`: the rounding is there."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(32, 32, generator=generator) for _ in range(2))
    out = torch.empty(32, 32)
    _product[(1,)](a, b, out, N=32, MODE=mode)
    exact = a.double() @ b.double()
    assert low <= (out - exact).norm() / exact.norm() <= high


@kernel
def _to_bfloat16(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + at).to(tl.bfloat16))


def test_bfloat16_rounds_to_nearest_even(interpreted):
    x = torch.tensor([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8 - 2**-12, 3.4e38, torch.inf, torch.nan, 1e-40])
    out = torch.zeros(8, dtype=torch.bfloat16)
    _to_bfloat16[(1,)](x, out, N=8)
    torch.testing.assert_close(out, x.bfloat16(), rtol=0, atol=0, equal_nan=True)


def test_float64_is_multiplied_in_float64(interpreted):
    a = torch.randn(16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    out = torch.empty(16, 16, dtype=torch.float64)
    _product[(1,)](a, a, out, N=16, MODE=modes.mode("medium", a.dtype))
    torch.testing.assert_close(out, a @ a, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("platform", modes.FLOAT32_MODES)
def test_every_precision_has_a_mode(platform):
    named = [modes.mode(precision, torch.float32, platform) for precision in ("highest", "high", "medium")]
    assert named[0] == "ieee"
    assert named[1] in ("tf32x3", "bf16x3")
    assert set(named) <= set(modes.MODES)
    assert modes.mode("medium", torch.bfloat16, platform) == modes.mode("high", torch.float64, platform) == "ieee"


def test_cpu_tensors_are_refused_with_the_remedy(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert backend.refuses(torch.ones(2)) == [
        "tensors are on cpu; move them to a GPU, or set TRITON_INTERPRET=1 to run the kernels interpreted (slowly)"
    ]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend.refuses(torch.ones(2), None) == []
    assert backend.refuses(torch.ones(2, dtype=torch.int8)) == ["dtype torch.int8"]
    assert backend.refuses(torch.ones(2), torch.ones(2, device="meta"))[0].startswith("tensors are on cpu and meta")


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch
from twophase_fast import ops
assert ops.gram(torch.ones(2, 3)).tolist() == [[3.0, 3.0], [3.0, 3.0]]
try:
    ops.gram(torch.ones(2, 3), backend="triton")
except Exception as error:
    print(error)
"""


def test_the_package_works_without_triton():
    finished = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, cwd=ROOT)
    assert finished.returncode == 0, finished.stderr
    assert "triton is not installed" in finished.stdout


def test_importing_the_ops_does_not_import_triton():
    program = "import sys; from twophase_fast import ops; assert 'triton.runtime.jit' not in sys.modules"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert finished.returncode == 0, finished.stderr


TABLE = LaunchTable(
    op="none",
    rows={("cuda",): (launch(BLOCK=128, num_warps=8), launch(BLOCK=64))},
    interpreted=launch(BLOCK=16, num_warps=1, num_stages=1),
)


def test_a_launch_table_gives_the_default_unless_told_to_time(monkeypatch):
    gpu, trials = torch.device("cuda"), []
    assert TABLE.choose(("cuda",), (5,), torch.device("cpu"), trials.append)["BLOCK"] == 16
    monkeypatch.setenv("TWOPHASE_AUTOTUNE", "0")
    assert TABLE.choose(("cuda",), (5,), gpu, trials.append)["BLOCK"] == 128
    monkeypatch.setenv("TWOPHASE_AUTOTUNE", "1")
    assert TABLE.choose(("cuda",), (5,), gpu)["BLOCK"] == 128
    assert trials == []
    assert TABLE.rows[("cuda",)][0].arguments() == {"BLOCK": 128, "num_warps": 8, "num_stages": 3}
    monkeypatch.setenv("TWOPHASE_AUTOTUNE", "yes")
    with pytest.raises(InputError, match="TWOPHASE_AUTOTUNE"):
        settings.autotune()


@pytest.fixture
def pretend_gpu(monkeypatch, tmp_path):
    """Autotuning with made-up times, its file in a fresh folder, and the indices that were timed."""
    timed = []

    def milliseconds(trial, index):
        trial(index)
        return [3.0, 1.0][index]

    monkeypatch.setenv("TWOPHASE_AUTOTUNE", "1")
    monkeypatch.setattr(autotune, "_milliseconds", milliseconds)
    monkeypatch.setattr(autotune, "cache_file", lambda: tmp_path / "triton" / "gpu.json")
    monkeypatch.setattr(autotune, "_known", {})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return timed


def test_the_fastest_is_timed_once_and_read_from_disk_afterwards(pretend_gpu, monkeypatch):
    def choose(size):
        return TABLE.choose(("cuda",), (size, 0), torch.device("cuda"), pretend_gpu.append)["BLOCK"]

    assert choose(100) == choose(65) == choose(128) == 64  # one shape class
    assert [trial["BLOCK"] for trial in pretend_gpu] == [128, 64]
    monkeypatch.setattr(autotune, "_known", {})  # another process
    assert choose(100) == 64
    assert len(pretend_gpu) == 2
    assert choose(129) == 64
    assert len(pretend_gpu) == 4
    autotune.cache_file().write_text("{cut off")
    monkeypatch.setattr(autotune, "_known", {})
    assert choose(100) == 64
    assert len(pretend_gpu) == 6


def test_nothing_is_timed_while_a_graph_is_recorded(pretend_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert TABLE.choose(("cuda",), (100,), torch.device("cuda"), pretend_gpu.append)["BLOCK"] == 128
    assert pretend_gpu == []


def test_shape_classes_are_powers_of_two():
    assert autotune.shape_class((0, 1, 2, 3, 64, 65)) == (0, 1, 2, 4, 64, 128)


PTX = """
$L__BB0_1:
  mov.u32 %r1, %r2;
$L__BB0_2:
  cp.async.cg.shared.global [%r1], [%r2], 16;
  wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32 {%f1};
  @%p1 bra $L__BB0_2;
  ld.global.f32 %f1, [%rd1];
  @%p2 bra $L__BB0_1;
  bra.uni $L__BB0_3;
$L__BB0_3:
"""
LOG = "ptxas info : 8 bytes stack frame, {} bytes spill stores, 12 bytes spill loads\nptxas info : Used 93 registers"


def test_assembly_is_read_loop_by_loop():
    found = assembly.nvidia({"ptx": PTX}, LOG.format(4))
    assert found == assembly.Findings(93, 16, loop_wgmma=True, loop_tensor_core=True, loop_async_copy=True)
    outside = PTX.replace("@%p1 bra $L__BB0_2", "@%p1 bra $L__BB0_3").replace("@%p2 bra $L__BB0_1", "nop")
    assert not assembly.nvidia({"ptx": outside}, LOG.format(0)).loop_wgmma
    with pytest.raises(ValueError, match="no register count"):
        assembly.nvidia({"ptx": PTX}, "")


def test_a_refused_backend_lists_the_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendError, match=r"triton: .*\n.*cpu: "):
        ops.gram(torch.ones(2, 3), backend="triton")
