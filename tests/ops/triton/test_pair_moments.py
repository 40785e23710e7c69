"""Pair moments under Triton's interpreter: dtypes, layouts, several chunks, NaN, and 1 − cos of twins."""

from fractions import Fraction

import pytest
import torch

from tests.ops.test_op_properties import column_major, spread_out
from tests.ops.triton.checks import assert_accurate, assert_repeatable, case_of
from twophase_fast import ops
from twophase_fast.ops._checks import ALL_FLOATS
from twophase_fast.ops.pair_moments import config, groups, reference

pytest.importorskip("triton")

CASE = case_of("pair_moments")
SIZES = [
    {"p": 1, "runs": 1, "s": 1},
    {"p": 17, "runs": 1, "s": 1},
    {"p": 37, "runs": 2, "s": 1},
    {"p": 33, "runs": 3, "s": 0},
    {"p": 97, "runs": 1, "s": 1},  # four chunks, and seven of the tensor twice as long
]


@pytest.mark.parametrize("dtype", ALL_FLOATS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "-".join(map(str, sizes.values())))
def test_every_dtype_is_as_accurate_as_plain_torch(dtype, sizes, interpreted):
    assert_accurate(CASE, sizes, dtype)


@pytest.mark.parametrize("layout", [spread_out, column_major])
def test_strides_do_not_matter(layout, interpreted):
    assert_accurate(CASE, SIZES[3], torch.float32, layout=layout)


def test_repeats_are_bitwise_equal(interpreted):
    assert_repeatable(CASE, SIZES[4], torch.float32)


def random_run(seed: int, shapes=((5,), (3, 4), (), (0,), (70,))) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dtypes = (torch.float32, torch.bfloat16, torch.float64, torch.float32, torch.bfloat16)
    return [torch.randn(shape, generator=generator).to(dtype) for shape, dtype in zip(shapes, dtypes)]


def test_dtypes_may_differ_between_positions_and_tensors_be_empty(interpreted):
    runs = [random_run(seed) for seed in range(3)]
    got = ops.pair_moments(runs, backend="triton")
    expected = ops.pair_moments(runs, backend="reference")
    for name in reference.FIELDS:
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("special", [torch.nan, -torch.nan, torch.inf])
def test_nan_and_infinity_reach_the_largest_difference(special, interpreted):
    x, y = torch.zeros(50), torch.zeros(50)
    y[40], y[3] = special, 7.0
    m = ops.pair_moments(x, y, backend="triton")
    assert m.changed.item() == 2
    torch.testing.assert_close(m.max_abs_d, torch.tensor([abs(special)], dtype=torch.float64), equal_nan=True)


@pytest.mark.parametrize("size", [1e-3, 1e-8, 1e-10])
def test_one_minus_cos_of_twins_is_accurate(size, interpreted):
    """Needs the residual's fused multiply-add: a rounded product would give 0 or noise."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(40, generator=generator, dtype=torch.float64)
    b = a * 1.001 + size * torch.randn(40, generator=generator, dtype=torch.float64)
    got = ops.one_minus_cos(a, b, backend="triton")
    assert got == pytest.approx(exact_one_minus_cos(a.tolist(), b.tolist()), rel=1e-9)


def exact_one_minus_cos(a: list[float], b: list[float]) -> float:
    """1 − cos = (1 − cos²)/(1 + cos), the numerator by exact fractions."""
    x, y = [Fraction(v) for v in a], [Fraction(v) for v in b]
    xy = sum(p * q for p, q in zip(x, y))
    cos_squared = xy * xy / (sum(p * p for p in x) * sum(q * q for q in y))
    return float(1 - cos_squared) / (1 + float(cos_squared) ** 0.5)


def test_chunks_cover_every_tensor_once():
    lengths = (5, 0, 32, 33, 100)
    cut = groups.cut(lengths, 32, torch.device("cpu"))
    assert cut.first.tolist() == [0, 1, 1, 2, 4, 8]
    assert cut.map.tolist() == [[0, 0], [2, 0], [3, 0], [3, 32], [4, 0], [4, 32], [4, 64], [4, 96]]


def test_chunks_are_long_for_large_models_and_bounded(monkeypatch):
    monkeypatch.setattr(config, "multiprocessors", lambda device: 132)
    lengths = [config.chunk_length(elements, torch.device("cuda")) for elements in (0, 10**6, 10**8, 10**12)]
    assert lengths == [config.SHORTEST_CHUNK, config.SHORTEST_CHUNK, 32768, config.LONGEST_CHUNK]
