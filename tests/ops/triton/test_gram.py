"""Gram blocks, interpreted: every mode, dtype and layout against float64, and how tiles and sums are cut."""

import itertools

import pytest
import torch

from tests.ops.test_op_properties import column_major, spread_out
from tests.ops.triton.checks import PLATFORMS, assert_accurate, assert_repeatable, case_of, on_platform
from twophase_fast import ops
from twophase_fast.ops._checks import ALL_FLOATS

pytest.importorskip("triton")
import triton.language as tl

from twophase_fast.ops._triton import modes
from twophase_fast.ops._triton.kernel import kernel
from twophase_fast.ops._triton.split import split_sum
from twophase_fast.ops._triton.tiles import rectangle_tile, triangle_tile
from twophase_fast.ops.gram import config, triton_kernel

SIZES = [
    {"batch": 0, "n": 1, "m": 0, "p": 1},
    {"batch": 0, "n": 17, "m": 0, "p": 33},  # 3 tiles of 16, split sums
    {"batch": 0, "n": 37, "m": 0, "p": 70},  # 6 tiles, several chunks each
    {"batch": 0, "n": 5, "m": 19, "p": 65},
    {"batch": 2, "n": 9, "m": 0, "p": 19},
    {"batch": 2, "n": 18, "m": 3, "p": 7},
    {"batch": 0, "n": 5, "m": 3, "p": 0},
]
IDS = ["-".join(map(str, sizes.values())) for sizes in SIZES]


@pytest.mark.parametrize("name", ["gram", "gram_"])
@pytest.mark.parametrize("dtype", ALL_FLOATS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=IDS)
def test_every_dtype_is_as_accurate_as_plain_torch(name, dtype, sizes, interpreted):
    assert_accurate(case_of(name), sizes, dtype)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_every_mode_keeps_its_bound(platform, precision, interpreted, monkeypatch):
    on_platform(monkeypatch, platform)
    for name, sizes in itertools.product(("gram", "gram_"), (SIZES[1], SIZES[3])):
        assert_accurate(case_of(name), sizes, torch.float32, precision)


@pytest.mark.parametrize(
    ("architecture", "platform"), [("sm_80", "cuda"), ("sm_90", "cuda"), ("gfx942", "gfx942"), ("gfx942", "hip")]
)
def test_the_launch_table_has_every_case(architecture, platform, monkeypatch):
    on_platform(monkeypatch, platform)
    monkeypatch.setattr(triton_kernel, "architecture", lambda: architecture)
    for dtype, precision, rows in itertools.product(ALL_FLOATS, ("highest", "high", "medium"), (5, 5000)):
        key = triton_kernel.launch_key(dtype, modes.mode(precision, dtype), rows, rows)
        assert config.GRAM.rows[key]


@pytest.mark.parametrize("layout", [spread_out, column_major])
def test_strides_do_not_matter(layout, interpreted):
    for name, sizes in itertools.product(("gram", "gram_"), (SIZES[1], SIZES[5])):
        assert_accurate(case_of(name), sizes, torch.float32, layout=layout)


def test_offsets_beyond_32_bits_give_the_same(interpreted, monkeypatch):
    monkeypatch.setattr(triton_kernel, "is_wide", lambda tensor, block: True)
    for name, sizes in itertools.product(("gram", "gram_"), (SIZES[1], SIZES[2], SIZES[5])):
        assert_accurate(case_of(name), sizes, torch.float32)


def test_wide_offsets_are_found_by_stride():
    def strided(*stride: int) -> torch.Tensor:
        return torch.empty_strided((100, 100), stride, device="meta")

    assert not triton_kernel.is_wide(strided(16_000_000, 1), 128)
    assert triton_kernel.is_wide(strided(17_000_000, 1), 128)
    assert triton_kernel.is_wide(strided(1, 17_000_000), 128)


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 65])
@pytest.mark.parametrize("layout", [torch.clone, spread_out, column_major])
def test_symmetrize_mirrors_exactly(n, layout, interpreted):
    assert_accurate(case_of("symmetrize_"), {"batch": 0, "n": n}, torch.float64, layout=layout)
    assert_accurate(case_of("symmetrize_"), {"batch": 2, "n": n}, torch.float32, layout=layout)


def test_repeats_are_bitwise_equal_and_the_result_is_symmetric(interpreted):
    assert_repeatable(case_of("gram"), SIZES[2], torch.float32)
    x = case_of("gram").inputs(SIZES[2], torch.float32)["x"]
    kernel_matrix = ops.gram(x, backend="triton", precision="medium")
    assert torch.equal(kernel_matrix, kernel_matrix.T)


@kernel
def _number_tiles(out, rows, columns, TRIANGULAR: tl.constexpr):
    t = tl.program_id(0)
    if TRIANGULAR:
        i_row, i_col = triangle_tile(t, rows)
    else:
        i_row, i_col = rectangle_tile(t, rows, columns)
    tl.store(out + 2 * t, i_row)
    tl.store(out + 2 * t + 1, i_col)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 7), (8, 8), (9, 9), (17, 17), (19, 5), (3, 20)])
def test_tiles_are_numbered_one_to_one(rows, columns, interpreted):
    for triangular in {rows == columns, False}:
        wanted = [(i, j) for i in range(rows) for j in range(i if triangular else 0, columns)]
        out = torch.full((len(wanted), 2), -1, dtype=torch.int32)
        _number_tiles[(len(wanted),)](out, rows, columns, TRIANGULAR=triangular)
        assert sorted(map(tuple, out.tolist())) == wanted


@pytest.mark.parametrize("terms", [1, 16, 17, 1000, 4096, 4097, 1_000_000])
@pytest.mark.parametrize("tiles", [1, 3, 100, 132, 133, 5000])
def test_sums_are_split_without_gap_or_overlap(terms, tiles):
    split = split_sum(terms, tiles, processors=132, step=32, longest=4096, shortest=512)
    assert split.chunk % 32 == 0
    assert split.chunk <= 4096
    covered = split.parts * split.chunks * split.chunk
    assert covered >= terms
    assert (split.parts - 1) * split.chunks * split.chunk < terms  # no part is empty
    assert tiles * split.parts <= max(tiles, 8 * 132)


def test_few_tiles_are_split_until_every_multiprocessor_works():
    assert split_sum(1_000_000, 1, processors=132, step=32, longest=4096, shortest=512).parts >= 120
    assert split_sum(1_000_000, 132 * 50, processors=132, step=32, longest=4096, shortest=512).parts == 1
    assert split_sum(100, 1, processors=132, step=32, longest=4096, shortest=512).parts == 1
