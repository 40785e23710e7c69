"""The engine on a real GPU, Triton forced: every way to ask for a kernel, without waiting; skipped without one.

`tests/ops/triton/test_on_gpu.py` has the ops and every model; `make gpu-check` runs both.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import twophase_fast as tp
from twophase_fast import zoo
from twophase_fast._model_cases import MODEL_CASES
from twophase_fast.ntk import block, computation, stream
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.guards import preserved
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.plan import Group
from twophase_fast.ops._triton.tables import as_if_recorded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
WAIT_THEMSELVES = ("weight_indexed", "flipped_samples_inside", "routed_experts")
SOME = ("small_cnn", "gpt_tied", "embedding_padding", "linear_3d", "lstm", "conv_preactivation")


@pytest.fixture(autouse=True)
def forced(monkeypatch):
    """Force Triton, with the default launch configurations."""
    monkeypatch.setenv("TWOPHASE_BACKEND", "triton")
    monkeypatch.setenv("TWOPHASE_AUTOTUNE", "0")


def gpu(value):
    return pytree.tree_map_only(torch.Tensor, torch.Tensor.cuda, value)


def on_cpu(model, *args, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TWOPHASE_BACKEND")
        return tp.entk(model, *args, **options)


def error(kernel, expected) -> float:
    return float((kernel.cpu() - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", [name for name in MODEL_CASES if name not in WAIT_THEMSELVES])
def test_a_block_does_not_wait(name, monkeypatch):
    model, inputs, options = MODEL_CASES[name]()
    expected = on_cpu(model, inputs, **options)
    enqueue = block.Block.enqueue

    def watched(self):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return enqueue(self)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    tp.entk(model.cuda(), gpu(inputs), **gpu(options))  # compiles
    monkeypatch.setattr(block.Block, "enqueue", watched)
    assert error(tp.entk(model, gpu(inputs), **gpu(options)), expected) < 1e-10


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("output", ["full", "trace", "diagonal", "sum"])
def test_every_output_of_two_sides_in_tiles(name, output):
    model, inputs, options = MODEL_CASES[name]()
    expected = on_cpu(model, inputs, inputs[:3].flip(0), output=output, **options)
    kernel = tp.entk(model.cuda(), gpu(inputs), gpu(inputs[:3].flip(0)), output=output, tile=2, **gpu(options))
    assert error(kernel, expected) < 1e-10


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 64), nn.Tanh(), nn.Linear(64, 4))


def images(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("precision", "bound"), [("highest", 1e-6), ("high", 1e-5), ("medium", 2e-3)])
def test_precisions(precision, bound):
    expected = on_cpu(network().double(), images(40).double())
    kernel, info = tp.entk(network().cuda(), gpu(images(40)), precision=precision, return_info=True)
    assert info.precision == precision
    assert error(kernel.double(), expected) < bound
    assert torch.equal(kernel, kernel.permute(1, 0, 3, 2))
    assert torch.equal(kernel, tp.entk(network().cuda(), gpu(images(40)), precision=precision))


def test_parameters_apart_add_up():
    parts = tp.entk(network().cuda(), gpu(images(9)), per_parameter=True)
    torch.testing.assert_close(sum(parts.values()), tp.entk(network().cuda(), gpu(images(9))), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cross", [False, True])
def test_streamed_to_the_host_in_blocks(cross, monkeypatch):
    budget = 200_000_000
    monkeypatch.setattr(stream, "_KERNEL_SHARE", 16 * 16 * 8 / budget)  # blocks of 16 samples a side
    model, x, y = network().double(), images(50).double(), images(30).double() if cross else None
    expected = on_cpu(model, x, y, output="trace")
    out = torch.full(expected.shape, torch.nan, dtype=torch.float64)
    info = tp.entk(model.cuda(), gpu(x), gpu(y), output="trace", out=out, memory_budget=budget, return_info=True)[1]
    assert info.plan.blocks == (4 * 2 if cross else 4 * 5 // 2)
    assert error(out, expected) < 1e-10


@pytest.mark.parametrize("output", ["full", "trace"])
def test_two_lanes_give_the_same_bits_every_time(output, monkeypatch):
    model, x = zoo.resnet20(width=8).eval().cuda(), torch.randn(48, 3, 32, 32).cuda()
    one = tp.entk(model, x, output=output, tile=16)
    make_plan = computation.make_plan

    def in_groups(*given, **options):
        plan = make_plan(*given, **options)
        names = [name for group in plan.groups for name in group.names]
        return replace(plan, groups=tuple(Group(tuple(names[k::6])) for k in range(6)))

    monkeypatch.setattr(computation, "make_plan", in_groups)
    first, info = tp.entk(model, x, output=output, tile=16, return_info=True)
    assert error(first, one.cpu()) < 1e-5
    assert min(info.seconds.values()) > 0
    for _ in range(8):
        assert torch.equal(tp.entk(model, x, output=output, tile=16), first)


def residual() -> nn.Module:
    return zoo.resnet20(width=4).eval()


def fully_connected() -> nn.Module:
    return zoo.mlp(inputs=192, widths=(64,) * 3, outputs=8)


@pytest.mark.parametrize("build", [network, residual, fully_connected])
def test_a_block_may_be_recorded_in_a_graph(build):
    model, x = build().cuda(), gpu(images(16))
    function = Function(model, None, dict(model.named_parameters()))
    with preserved(model, function.device):
        asked = computation.Computation(function, Batch(x, None, len(x)), None, "full", None, None)
        assert asked.prepare().by_rule
        rows, columns = next(asked.blocks())
        lane = torch.cuda.Stream()
        lane.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(lane), as_if_recorded():
            expected = asked.enqueue(rows, columns)[0][""].clone()
        torch.cuda.current_stream().wait_stream(lane)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=lane):
            kernels, checks = asked.enqueue(rows, columns)
        for _ in range(3):
            kernels[""].fill_(torch.nan)
            graph.replay()
            checks.settle()
            assert torch.equal(kernels[""], expected)


def test_an_estimate_and_an_operator():
    model, x = network().double().cuda(), gpu(images(12)).double()
    kernel = tp.entk(model, x)
    matrix = tp.as_matrix(kernel)
    v = torch.randn(matrix.shape[1], dtype=torch.float64, device="cuda")
    torch.testing.assert_close(tp.NTKOperator(model, x) @ v, matrix @ v)
    estimate = tp.entk_estimate(model, x, output="trace", probes=64)
    off = (estimate.kernel - kernel.diagonal(dim1=2, dim2=3).sum(-1)).abs() / estimate.stderr.clamp_min(1e-12)
    assert float(off.median()) < 3
