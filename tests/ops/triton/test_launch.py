"""Every launch as a GPU would get it, up to the launch itself: arguments specialised and compiled, nothing run.

The interpreter takes arguments that the compiler does not; here the compiler gets what the launchers pass.
"""

import pytest
import torch

pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from tests.ops.test_op_properties import mapped
from twophase_fast.ops import _dispatch
from twophase_fast.ops._cases import OP_CASES
from twophase_fast.ops._triton import modes
from twophase_fast.ops._triton.kernel import Kernel
from twophase_fast.ops._triton.launch import LaunchTable

CASES = [case for case in OP_CASES if "triton" in _dispatch.backends(case.name)]


class PretendDriver:
    """Says that there is an H100."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def compiled(monkeypatch):
    """Compile instead of launching, with the default configurations of an H100; the kernels that were compiled."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, whose kernels must not be taken for those of another")
    found = []

    def compile_only(self, *args, grid, warmup, **kwargs):
        assert all(size >= 1 for size in grid), grid
        found.append(JITFunction.run(self, *args, grid=grid, warmup=True, **kwargs))
        self.device_caches.clear()

    monkeypatch.setattr(Kernel, "run", compile_only)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    modes.architecture.cache_clear()
    monkeypatch.setattr(LaunchTable, "choose", lambda self, key, *_: self.rows[key][0])
    monkeypatch.setattr(driver, "_active", PretendDriver())
    yield found
    modes.architecture.cache_clear()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.full)], ids=str)
def test_what_the_launchers_pass_compiles(case, dtype, compiled):
    sizes = [case.sizes[len(case.sizes) // 2], case.sizes[-1]]
    for inputs in (case.inputs(some, dtype) for some in sizes):
        _dispatch._table[case.name]["triton"].run(*case.operands(mapped(inputs, torch.clone)))
    assert compiled
    assert all(kernel.metadata.target.arch == 90 for kernel in compiled)


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("rows", [64, 320])
def test_aligned_operands_reach_the_tensor_cores(precision, rows, compiled):
    x, out = torch.ones(rows, 640), torch.zeros(rows, rows)
    _dispatch._table["gram_"]["triton"].run(out, x, None, precision)
    _dispatch._table["grouped_gram_"]["triton"].run(out, [x, x[:, :320]], [], precision)
    products = [kernel for kernel in compiled if "gram_kernel" in kernel.name]
    assert len(products) == 2
    assert all("wgmma.mma_async" in kernel.asm["ptx"] for kernel in products)
    assert all("cp.async.cg.shared.global" in kernel.asm["ptx"] for kernel in products)  # 16 bytes at a time


def test_operands_that_are_missing_compile(compiled):
    g, channel, statistics = torch.ones(2, 3, 4, 70), torch.ones(4), torch.ones(2, 4)
    _dispatch._table["batch_norm_grad"]["triton"].run(g, g[:, 0].contiguous(), channel, channel, None, None)
    _dispatch._table["layer_norm_grad"]["triton"].run(g, g[:, 0].contiguous(), statistics, statistics, None)
    assert {kernel.name for kernel in compiled} >= {"batch_norm_kernel", "layer_norm_kernel"}
