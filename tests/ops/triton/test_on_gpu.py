"""The Triton backend forced on a real GPU: every op's table row, every model, streams of work without waiting.

`make gpu-check` runs it; without a GPU it is skipped.
"""

import pytest
import torch
from torch.utils import _pytree as pytree

import twophase_fast as tp
from tests.ops.test_op_properties import budget, error, mapped, same_bits, spread_out, truth
from tests.ops.triton.checks import BOUNDS, inputs_of
from twophase_fast import ops
from twophase_fast._model_cases import MODEL_CASES
from twophase_fast.ntk import naive_entk
from twophase_fast.ops import _dispatch
from twophase_fast.ops._cases import OP_CASES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

CASES = [case for case in OP_CASES if "triton" in _dispatch.backends(case.name)]
LIBRARY = [case for case in OP_CASES if "library" in _dispatch.backends(case.name)]
LIBRARY_BOUNDS = {torch.float32: 1e-5, torch.float64: 1e-13}  # cuDNN picks its algorithms; TF32 would be at 1e-3
TOO_WIDE = {("layer_norm_grad", 5000), ("layer_norm_grad_out", 5000)}  # rows of float64
EVERY = 4  # every fourth set of sizes: compiling takes most of the time


@pytest.fixture(autouse=True)
def forced(monkeypatch):
    """Force Triton, with the default launch configurations."""
    monkeypatch.setenv("TWOPHASE_BACKEND", "triton")
    monkeypatch.setenv("TWOPHASE_AUTOTUNE", "0")


def on_gpu(case, inputs: dict) -> list[torch.Tensor]:
    """The values that the op computes on the GPU, on the CPU."""
    result = case.call(**mapped(inputs, torch.Tensor.cuda))
    return [value.cpu() for value in case.values(pytree.tree_map_only(torch.Tensor, torch.Tensor.cpu, result))]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_dtype_is_as_accurate_as_plain_torch(case):
    for dtype in case.dtypes:
        for sizes in case.sizes[::EVERY]:
            inputs = case.inputs(sizes, dtype)
            if (case.name, sizes.get("d")) in TOO_WIDE:
                continue
            exact = truth_on_cpu(case, inputs)
            allowed = budget_on_cpu(case, inputs, exact)
            assert error(on_gpu(case, inputs), exact) <= allowed, (dtype, sizes)


def truth_on_cpu(case, inputs: dict) -> list[torch.Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TWOPHASE_BACKEND")
        return truth(case, inputs)


def budget_on_cpu(case, inputs: dict, exact: list[torch.Tensor]) -> float:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TWOPHASE_BACKEND")
        return budget(case, inputs, exact)


@pytest.fixture
def tf32(monkeypatch):
    """A session that allows TF32."""
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32")
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("case", LIBRARY, ids=str)
def test_products_of_a_library_are_not_rounded_to_tf32(case, tf32):
    for dtype in case.dtypes:
        for sizes in case.sizes[::EVERY]:
            inputs = case.inputs(sizes, dtype)
            assert error(on_gpu(case, inputs), truth_on_cpu(case, inputs)) <= LIBRARY_BOUNDS[dtype], (dtype, sizes)


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_precision_keeps_its_bound(case, precision):
    inputs = inputs_of(case, case.sizes[-1], torch.float32, precision)
    if "precision" in inputs:
        assert error(on_gpu(case, inputs), truth_on_cpu(case, inputs)) <= BOUNDS[precision]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_strides_do_not_matter_and_repeats_are_bitwise_equal(case):
    inputs = case.inputs(case.sizes[-1], torch.float32)
    allowed = budget_on_cpu(case, inputs, exact := truth_on_cpu(case, inputs))
    got = case.values(
        case.call(**mapped(inputs, lambda t: spread_out(t.cuda()) if t.is_floating_point() else t.cuda()))
    )
    assert error([value.cpu() for value in got], exact) <= allowed
    assert all(same_bits(a, b) for a, b in zip(on_gpu(case, inputs), on_gpu(case, inputs)))


def test_a_call_repeated_does_not_wait_for_the_gpu():
    x, out = torch.randn(300, 500, device="cuda"), torch.zeros(300, 300, device="cuda")
    g, images, channel = (torch.ones(shape, device="cuda") for shape in ((2, 3, 4, 8, 8), (2, 4, 8, 8), (4,)))
    rows, statistics, weight = (torch.ones(shape, device="cuda") for shape in ((2, 4, 64), (2, 4), (8, 4, 3, 3)))

    def calls() -> None:
        ops.batch_norm_grad(g, images, channel, channel, channel, relu=images, out=g)
        ops.relu_grad_(g, images)
        ops.layer_norm_grad(g.view(2, 3, 4, 64), rows, statistics, statistics)
        pulled = ops.conv_input_grad(torch.ones(6, 8, 8, 8, device="cuda"), weight, (8, 8), padding=1)
        ops.conv_input_grad_(pulled, torch.ones(6, 8, 8, 8, device="cuda"), weight, padding=1, add=True)
        ops.linear_input_grad_(g.view(2, 3, 32, 8), g.new_ones(2, 3, 32, 5), g.new_ones(5, 8), add=True)
        ops.batched_product_(g.view(2, 3, 4, 8, 8), g.new_ones(2, 3, 4, 8, 8), g.new_ones(2, 1, 4, 8, 8))
        ops.gram_(out, x)
        ops.grouped_gram_(out, [x, x])
        ops.symmetrize_(out)
        torch.ops.twophase_fast.pair_moments([x], [x], 1, "triton")

    calls()
    torch.cuda.set_sync_debug_mode("error")
    try:
        calls()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_gram_may_be_recorded_in_a_graph():
    x = torch.randn(100, 3000, device="cuda")
    expected, out = ops.gram(x), torch.zeros(100, 100, device="cuda")
    ops.gram_(out, x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out.zero_()
        ops.gram_(out, x)
        ops.symmetrize_(out)
    graph.replay()
    assert torch.equal(out, expected)


@pytest.mark.parametrize("name", MODEL_CASES)
def test_every_model_is_exact(name):
    model, inputs, options = MODEL_CASES[name]()
    expected = naive_entk(model, inputs, **options)
    move = lambda value: pytree.tree_map_only(torch.Tensor, torch.Tensor.cuda, value)  # noqa: E731
    kernel = tp.entk(model.cuda(), move(inputs), **move(options))
    assert float((kernel.cpu() - expected).norm() / expected.norm()) < 1e-10
