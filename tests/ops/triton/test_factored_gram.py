"""`factored_gram` in Triton: every output, split of a block, mode and dtype against the float64 reference."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")

from tests.ops.test_op_properties import column_major, spread_out
from tests.ops.triton.checks import PLATFORMS, assert_accurate, assert_repeatable, case_of, on_platform
from twophase_fast import ops
from twophase_fast.ops import _operands
from twophase_fast.ops._triton.launch import launch
from twophase_fast.ops.factored_gram import triton_kernel
from twophase_fast.ops.factored_gram.config import Sizes
from twophase_fast.ops.factored_gram.triton_config import LAUNCHES, method, split

pytestmark = pytest.mark.usefixtures("interpreted")
FLOATS = [torch.float32, torch.float64]
BASE = {"n": 3, "m": 4, "t": 2, "s": 3, "c": 2, "e": 2, "d": 5, "p": 6}
SHAPES = [
    {},
    {"m": 0},
    {"t": 1, "s": 1, "d": 17, "p": 33},
    {"t": 1, "s": 1, "m": 0, "c": 3, "e": 3},
    {"n": 9, "m": 2, "t": 1},
    {"t": 17, "s": 2, "n": 2, "m": 2, "c": 1, "e": 1},
    {"c": 3, "e": 3, "n": 1, "d": 1, "p": 1},
    {"n": 0},
    {"t": 0},
    {"d": 0},
]
OUTPUTS = {"full": 0, "trace": 1, "diagonal": 2}


@pytest.fixture(autouse=True)
def fused(monkeypatch):
    """Small sizes would mostly be materialised."""
    monkeypatch.setattr(triton_kernel, "method", lambda *_: "fused")


def operands(seed, n, t, c, d, p, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, t, d, generator=generator, dtype=torch.float64).to(dtype)
    return a, torch.randn(n, c, t, p, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_at_odd_sizes(output, dtype):
    for shape in SHAPES:
        assert_accurate(case_of("factored_gram"), {**BASE, **shape, "output": OUTPUTS[output]}, dtype)


@pytest.mark.parametrize("output", OUTPUTS)
def test_adds_to_an_accumulator_whose_lower_triangle_is_poisoned(output):
    for shape in ({}, {"m": 0}, {"t": 1, "s": 1, "m": 0}):
        assert_accurate(case_of("factored_gram_"), {**BASE, **shape, "output": OUTPUTS[output]}, torch.float32)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_every_mode(precision, platform, monkeypatch):
    on_platform(monkeypatch, platform)
    for output, shape in enumerate(({"d": 40, "p": 35}, {"t": 1, "s": 1, "m": 0}, {"d": 40})):
        assert_accurate(case_of("factored_gram"), {**BASE, **shape, "output": output}, torch.float32, precision)


@pytest.mark.parametrize("layout", [spread_out, column_major])
@pytest.mark.parametrize("output", OUTPUTS)
def test_strides_do_not_matter(output, layout):
    for name in ("factored_gram", "factored_gram_"):
        for shape in ({}, {"t": 1, "s": 1, "m": 0}):
            sizes = {**BASE, **shape, "output": OUTPUTS[output]}
            assert_accurate(case_of(name), sizes, torch.float32, layout=layout)


def test_repeats_are_bitwise_equal():
    assert_repeatable(case_of("factored_gram"), {**BASE, "n": 17, "output": 0}, torch.float32)


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_symmetric_block_is_exactly_symmetric(output):
    block = ops.factored_gram(*operands(0, n=18, t=2, c=3, d=9, p=7), output=output, backend="triton")
    mirrored = block.permute(1, 0, 3, 2) if output == "full" else block.transpose(0, 1)
    assert torch.equal(block, mirrored)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(key, marks=[] if key[-1] == "large" else pytest.mark.full, id="-".join(key))
        for key in LAUNCHES.rows
    ],
)
def test_launch_configurations_that_a_gpu_takes(key):
    """Several samples, classes and positions in one block."""
    dtype = getattr(torch, key[1])
    for n, t, c, d, p in ((5, 1, 3, 48, 33), (3, 20, 2, 32, 16)):
        left = operands(1, n, t, c, d, p, dtype)
        for output in ("full", "trace"):
            exact = ops.factored_gram(*(x.double() for x in left), output=output, backend="reference")
            out = _operands.new_gram(output, left[1], None)
            problem = triton_kernel.Problem(out, left, left, output, symmetric=False, mode=key[0])
            problem.start(LAUNCHES.rows[key][0])
            assert (out.double() - exact).norm() <= (2e-3 if key[0] == "tf32" else 1e-5) * exact.norm()


def test_a_trace_over_one_position_is_one_long_sum():
    left, right = operands(2, n=4, t=1, c=3, d=5, p=6), operands(3, n=2, t=1, c=3, d=5, p=6)
    (_, joined), _ = triton_kernel.joined(left, right)
    assert joined.shape == (4, 1, 1, 18)
    assert torch.equal(joined.flatten(), left[1].flatten())
    apart = left[0], spread_out(left[1])
    assert triton_kernel.joined(apart, right) == (apart, right)


@pytest.mark.parametrize("samples", [1, 16, 300])
@pytest.mark.parametrize("positions", [1, 3, 65])
@pytest.mark.parametrize("classes", [1, 7, 10, 1000])
def test_a_split_fills_the_block(samples, positions, classes):
    sizes = Sizes(samples, samples, positions, positions, classes, classes, 512, 256)
    for output in OUTPUTS:
        parts = split(sizes, output, 64, 32)
        n, m = parts.samples(launch(ROWS=64, COLUMNS=32))
        assert n * parts.classes * parts.positions == 64
        assert m * parts.classes2 * parts.positions2 == 32
        assert output == "full" or parts.classes == parts.classes2 == 1


def test_a_split_shares_the_inputs_among_classes_and_avoids_padding():
    assert split(Sizes(64, 64, 1, 1, 8, 8, 4096, 16), "full", 64, 64).classes == 4
    assert split(Sizes(64, 64, 1, 1, 1, 1, 4096, 16), "full", 64, 64).classes == 1
    assert split(Sizes(2, 2, 64, 64, 1, 1, 64, 64), "full", 64, 64).positions >= 32
    assert split(Sizes(64, 64, 1, 1, 5, 5, 16, 64), "full", 64, 64).classes == 1


def test_offsets_beyond_32_bits_are_computed_in_64(monkeypatch):
    left, right = operands(4, n=3, t=2, c=2, d=5, p=4), operands(5, n=2, t=3, c=2, d=5, p=4)
    exact = ops.factored_gram(*left, *right, backend="reference")
    problem = triton_kernel.Problem(torch.zeros_like(exact), left, right, "full", symmetric=False, mode="ieee")
    parts, chosen = split(problem.sizes, "full", 16, 16), LAUNCHES.interpreted
    assert not problem._is_wide(parts, chosen)
    far = left[0].new_empty(0).expand(3, 2, 0).as_strided((3, 2, 0), (2**31, 5, 1))
    assert triton_kernel.Problem(exact, (far, left[1]), right, "full", symmetric=False, mode="ieee")._is_wide(
        parts, chosen
    )
    monkeypatch.setattr(triton_kernel, "is_wide", lambda *_: True)
    problem.start(chosen)
    torch.testing.assert_close(problem.out, exact)


@pytest.mark.parametrize("output", OUTPUTS)
def test_jacobians_where_they_are_cheaper(output, monkeypatch):
    left, right = operands(6, n=3, t=9, c=2, d=3, p=4), operands(7, n=2, t=11, c=2, d=3, p=4)
    assert method(Sizes(3, 2, 9, 11, 2, 2, 3, 4), output) == "materialised"
    monkeypatch.setattr(triton_kernel, "method", method)
    small = replace(triton_kernel._KERNELS, jacobian=1 << 9, inputs=2)
    monkeypatch.setattr(triton_kernel, "_KERNELS", small)
    for second in (right, (None, None)):
        got = ops.factored_gram(*left, *second, output=output, backend="triton")
        torch.testing.assert_close(got, ops.factored_gram(*left, *second, output=output, backend="reference"))


def test_the_method_follows_the_cost():
    assert method(Sizes(64, 64, 1, 1, 10, 10, 512, 512), "full") == "fused"
    assert method(Sizes(64, 64, 4, 4, 10, 10, 512, 512), "trace") == "fused"
    assert method(Sizes(64, 64, 64, 64, 10, 10, 512, 512), "full") == "materialised"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype, monkeypatch):
    monkeypatch.setattr(triton_kernel, "method", lambda *_: "materialised")  # not for these dtypes
    for output, shape in enumerate(({}, {"t": 1, "s": 1, "m": 0}, {"d": 20, "p": 18})):
        assert_accurate(case_of("factored_gram"), {**BASE, **shape, "output": output}, dtype)
