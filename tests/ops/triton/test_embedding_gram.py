"""`embedding_gram` in Triton: outputs, equal and padding tokens, modes and layouts against the float64 reference."""

import pytest
import torch

pytest.importorskip("triton")

from tests.ops.test_op_properties import column_major, spread_out
from tests.ops.triton.checks import PLATFORMS, assert_accurate, assert_repeatable, case_of, on_platform
from twophase_fast import ops

pytestmark = pytest.mark.usefixtures("interpreted")
FLOATS = [torch.float32, torch.float64]
BASE = {"n": 3, "m": 4, "t": 2, "s": 3, "c": 2, "e": 2, "d": 5, "p": 6}
SHAPES = [
    {},
    {"m": 0},
    {"t": 1, "s": 1, "p": 33},
    {"t": 1, "s": 1, "m": 0, "c": 3, "e": 3, "d": 4},
    {"t": 18, "s": 5, "n": 2, "m": 2, "c": 1, "e": 1},
    {"n": 0},
    {"t": 0},
    {"p": 0},
]
OUTPUTS = {"full": 0, "trace": 1, "diagonal": 2}


def operands(seed, n, t, c, p):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, (n, t), generator=generator), torch.randn(n, c, t, p, generator=generator)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_at_odd_sizes(output, dtype):
    """The axis d, odd or even, says whether one token pads."""
    for shape in SHAPES:
        assert_accurate(case_of("embedding_gram"), {**BASE, **shape, "output": OUTPUTS[output]}, dtype)


@pytest.mark.parametrize("output", OUTPUTS)
def test_adds_to_an_accumulator_whose_lower_triangle_is_poisoned(output):
    for shape in ({}, {"m": 0}, {"t": 1, "s": 1, "m": 0}):
        assert_accurate(case_of("embedding_gram_"), {**BASE, **shape, "output": OUTPUTS[output]}, torch.float32)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_every_mode(precision, platform, monkeypatch):
    on_platform(monkeypatch, platform)
    sizes = {**BASE, "p": 35, "output": 0}
    assert_accurate(case_of("embedding_gram"), sizes, torch.float32, precision)


@pytest.mark.parametrize("layout", [spread_out, column_major])
def test_strides_do_not_matter(layout):
    tokens, g = operands(0, 3, 4, 2, 5)
    other = operands(1, 2, 5, 2, 5)
    exact = ops.embedding_gram(tokens, g, *other, backend="reference")
    wide = torch.full((3, 9), -1).index_copy_(1, torch.arange(1, 9, 2), tokens)[:, 1::2]
    got = ops.embedding_gram(wide, layout(g), other[0].T.contiguous().T, layout(other[1]), backend="triton")
    torch.testing.assert_close(got, exact)
    for name in ("embedding_gram", "embedding_gram_"):
        assert_accurate(case_of(name), {**BASE, "output": 0}, torch.float32, layout=torch.clone)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_blocks_without_equal_tokens_add_nothing(dtype):
    tokens, g = operands(2, 3, 20, 1, 4)
    out = torch.ones(3, 3, 1, 1)
    poison = torch.full_like(g, torch.nan)
    ops.embedding_gram_(out, tokens.to(dtype), g, tokens.to(dtype) + 5, poison, backend="triton")
    assert torch.equal(out, torch.ones_like(out))


def test_large_token_numbers_are_told_apart():
    tokens = torch.tensor([[0, 2**32, 2**32 + 1, 2**33]])
    g = torch.eye(4).view(1, 1, 4, 4) + 1
    exact = ops.embedding_gram(tokens, g, backend="reference")
    assert torch.equal(ops.embedding_gram(tokens, g, backend="triton"), exact)


def test_the_symmetric_block_is_exactly_symmetric():
    block = ops.embedding_gram(*operands(3, n=17, t=2, c=2, p=5), backend="triton")
    assert torch.equal(block, block.permute(1, 0, 3, 2))


def test_repeats_are_bitwise_equal():
    assert_repeatable(case_of("embedding_gram"), {**BASE, "n": 9, "output": 0}, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    tokens, g = operands(4, 3, 4, 2, 20)
    got = ops.embedding_gram(tokens, g.to(dtype), backend="triton")
    exact = ops.embedding_gram(tokens, g.to(dtype).double(), backend="reference")
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)
