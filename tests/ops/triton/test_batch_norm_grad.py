"""The backward of BatchNorm and ReLU, interpreted: every dtype, odd tiles, shares of cotangents, layouts, bits."""

import pytest
import torch

pytest.importorskip("triton")

from tests.ops.test_op_properties import column_major, spread_out
from tests.ops.triton.checks import assert_accurate, assert_repeatable, case_of
from twophase_fast import ops
from twophase_fast.ops._triton.launch import launch
from twophase_fast.ops.batch_norm_grad import config, triton_kernel

pytestmark = pytest.mark.usefixtures("interpreted")
FLOATS = [torch.float32, torch.float64]
BASE = {"n": 2, "c": 3, "k": 5, "t": 9, "relu": 1, "weight": 1}
SHAPES = [
    {},
    {"relu": 0, "weight": 0},
    {"relu": 0, "t": 0, "k": 70},  # no positions, several tiles of channels
    {"weight": 0, "t": 1, "n": 1, "c": 1, "k": 1},
    {"t": 4, "k": 33},
    {"t": 70},  # several blocks of positions
    {"t": 260, "k": 2},
    {"c": 7, "n": 1, "k": 1},
    {"c": 60, "n": 1, "k": 3, "t": 2},  # several cotangents a program
]
NAMES = ["batch_norm_grad", "batch_norm_grad_out", "relu_grad_"]
EMPTY = [{"n": 0}, {"c": 0}, {"k": 0}]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_dtype_at_odd_sizes(name, dtype):
    for shape in SHAPES + EMPTY:
        assert_accurate(case_of(name), {**BASE, **shape}, dtype)


@pytest.mark.parametrize("layout", [spread_out, column_major])
def test_strides_do_not_matter(layout):
    for name in NAMES:
        assert_accurate(case_of(name), BASE, torch.float32, layout=layout)


def test_repeats_are_bitwise_equal():
    for name in NAMES:
        assert_repeatable(case_of(name), {**BASE, "t": 70}, torch.float32)


def test_shares_of_cotangents_do_not_change_the_bits(monkeypatch):
    inputs = case_of("batch_norm_grad").inputs({**BASE, "c": 7, "t": 70}, torch.float32)
    several = ops.batch_norm_grad(**inputs, backend="triton")
    monkeypatch.setattr(triton_kernel, "shared_out", lambda *_: 7)
    for a, b in zip(several, ops.batch_norm_grad(**inputs, backend="triton")):
        assert torch.equal(a, b)


def test_all_sums_are_zero_where_no_position_is():
    g, x, channel = torch.ones(2, 3, 4, 0), torch.ones(2, 4, 0), torch.ones(4)
    out, weight_grad, bias_grad = ops.batch_norm_grad(g, x, channel, channel, backend="triton")
    assert out.shape == g.shape
    assert torch.equal(weight_grad, torch.zeros(2, 3, 4))
    assert torch.equal(bias_grad, torch.zeros(2, 3, 4))


def test_not_a_number_in_the_relu_lets_cotangents_through():
    g, relu = torch.ones(1, 2, 3), torch.tensor([[torch.nan, 0.0, 1.0]])
    assert torch.equal(ops.relu_grad_(g, relu, backend="triton"), torch.tensor([1.0, 0.0, 1.0]).expand(1, 2, 3))


@pytest.mark.parametrize(
    ("channels", "positions", "tile"),
    [(64, 1, (64, 1)), (2048, 1, (256, 1)), (64, 49, (8, 64)), (3, 1000, (1, 1024)), (512, 12544, (1, 1024))],
)
def test_tiles_hold_whole_rows_where_they_fit(channels, positions, tile):
    chosen = config.tile_of("sm_90", launch(ELEMENTS=1024, num_warps=8, num_stages=1), channels, positions)
    assert (chosen["CHANNELS"], chosen["POSITIONS"]) == tile
    elements = tile[0] * tile[1]
    assert (chosen.num_warps, chosen.num_stages) == (min(max(elements // 128, 1), 8), 1), (
        "no warp holds another one's elements"
    )


@pytest.mark.parametrize(("programs", "each"), [(1, 1), (132, 1), (132 * 8, 5), (132 * 16, 10), (10**6, 10)])
def test_cotangents_are_shared_out_until_every_multiprocessor_works(programs, each):
    assert config.shared_out(10, programs, 132) == each
