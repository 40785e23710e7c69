"""The backward of LayerNorm, interpreted: every dtype, odd tiles, chunks of positions, layouts, bits, refusals."""

import pytest
import torch

pytest.importorskip("triton")

from tests.ops.test_op_properties import column_major, spread_out
from tests.ops.triton.checks import assert_accurate, assert_repeatable, case_of
from twophase_fast import ops
from twophase_fast._types import BackendError
from twophase_fast.ops._triton.launch import launch
from twophase_fast.ops.layer_norm_grad import config, triton_kernel

pytestmark = pytest.mark.usefixtures("interpreted")
FLOATS = [torch.float32, torch.float64]
BASE = {"n": 2, "c": 3, "t": 5, "d": 17, "weight": 1}
SHAPES = [
    {},
    {"weight": 0, "d": 3, "t": 33},
    {"d": 64, "t": 9},
    {"d": 65, "t": 1, "n": 1, "c": 1},
    {"t": 70, "d": 2},
    {"n": 0},
    {"c": 0},
    {"t": 0},
]
NAMES = ["layer_norm_grad", "layer_norm_grad_out"]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_dtype_at_odd_sizes(name, dtype):
    for shape in SHAPES:
        assert_accurate(case_of(name), {**BASE, **shape}, dtype)


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_of_positions_are_added(chunk, monkeypatch):
    monkeypatch.setattr(triton_kernel, "chunk_length", lambda positions, rows, *_: chunk * rows)
    for name in NAMES:
        for shape in ({"t": 40, "d": 9}, {"t": 7, "d": 70}):
            assert_accurate(case_of(name), {**BASE, **shape}, torch.float32)


def test_sums_over_many_features_and_positions(monkeypatch):
    monkeypatch.setattr(config.NORM.__class__, "choose", lambda *_: launch(ELEMENTS=2048, num_warps=4, num_stages=1))
    assert_accurate(case_of("layer_norm_grad"), {**BASE, "t": 3000, "n": 1, "c": 1}, torch.float32)
    assert_accurate(case_of("layer_norm_grad"), {**BASE, "d": 5000, "n": 1}, torch.float32)


@pytest.mark.parametrize("layout", [spread_out, column_major])
def test_strides_do_not_matter(layout):
    for name in NAMES:
        assert_accurate(case_of(name), BASE, torch.float32, layout=layout)


def test_repeats_are_bitwise_equal():
    assert_repeatable(case_of("layer_norm_grad_out"), {**BASE, "t": 70}, torch.float32)


def test_rows_that_no_multiprocessor_holds_are_refused():
    g, x, statistics = torch.ones(1, 1, 1, 8193), torch.ones(1, 1, 8193), torch.ones(1, 1)
    with pytest.raises(BackendError, match="triton: 8193 features; the kernel holds whole rows of up to 8192"):
        ops.layer_norm_grad(g, x, statistics, statistics, backend="triton")


@pytest.mark.parametrize(
    ("positions", "features", "tile"), [(65, 192, (4, 256)), (2, 5, (2, 8)), (9, 1024, (1, 1024)), (9, 4096, (1, 4096))]
)
def test_tiles_hold_whole_rows(positions, features, tile):
    chosen = config.tile_of("sm_90", launch(ELEMENTS=1024, num_warps=8, num_stages=1), positions, features)
    assert (chosen["ROWS"], chosen["FEATURES"]) == tile
    assert chosen.num_warps == min(max(tile[0] * tile[1] // 128, 1), 8), "no warp holds another one's elements"


@pytest.mark.parametrize(
    ("positions", "programs", "chunk"), [(197, 10**6, 128), (197, 1056, 100), (197, 1, 4), (3, 10**6, 4)]
)
def test_positions_are_cut_until_every_multiprocessor_works(positions, programs, chunk):
    assert config.chunk_length(positions, 4, programs, 132) == chunk


def test_the_launch_table_has_every_case():
    for architecture in ("sm_80", "sm_90", "gfx942"):
        for size, features in ((4, 1), (4, 1024), (4, 1025), (4, 8192), (8, 2048)):
            assert config.NORM.rows[architecture, str(size), config.features_class(features, size)]
