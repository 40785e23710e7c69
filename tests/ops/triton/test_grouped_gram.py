"""Grouped Gram blocks, interpreted: every dtype, mode and layout, and how segments are cut into parts and pieces."""

import pytest
import torch

from tests.ops.test_op_properties import column_major, spread_out
from tests.ops.triton.checks import PLATFORMS, assert_accurate, assert_repeatable, case_of, on_platform
from twophase_fast import ops
from twophase_fast.ops._checks import ALL_FLOATS

pytest.importorskip("triton")

from twophase_fast.ops._triton.tables import as_if_recorded
from twophase_fast.ops.gram import config
from twophase_fast.ops.grouped_gram import triton_kernel
from twophase_fast.ops.grouped_gram.schedule import FIRST, LATER, NOT_YET, schedule

CASE = case_of("grouped_gram_")
SIZES = [{"n": 1, "m": 0, "p": 1}, {"n": 17, "m": 0, "p": 19}, {"n": 33, "m": 0, "p": 37}, {"n": 5, "m": 18, "p": 40}]


@pytest.mark.parametrize("dtype", ALL_FLOATS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "-".join(map(str, sizes.values())))
def test_every_dtype_is_as_accurate_as_plain_torch(dtype, sizes, interpreted):
    assert_accurate(CASE, sizes, dtype)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_every_mode_keeps_its_bound(platform, precision, interpreted, monkeypatch):
    on_platform(monkeypatch, platform)
    assert_accurate(CASE, SIZES[1], torch.float32, precision)


@pytest.mark.parametrize("layout", [spread_out, column_major])
def test_strides_do_not_matter(layout, interpreted):
    assert_accurate(CASE, SIZES[1], torch.float32, layout=layout)


def test_repeats_are_bitwise_equal(interpreted):
    assert_repeatable(CASE, SIZES[2], torch.float32)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_aligned_segments_take_wide_loads(wide, dtype, interpreted, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    xs = [torch.randn(19, length, generator=generator).to(dtype) for length in (16, 40, 8)]
    table, vector = triton_kernel._operands(xs, xs)
    assert vector == 16 // dtype.itemsize
    assert table.view(3, 6)[1].tolist() == [xs[1].data_ptr()] * 2 + [40, 40, 1, 1]
    assert triton_kernel._operands(xs, [x[:, ::2] for x in xs])[1] == 0
    monkeypatch.setattr(triton_kernel, "is_wide", lambda tensor, block: wide)
    out = ops.grouped_gram_(torch.zeros(19, 19, dtype=ops.gram(xs[0]).dtype), xs, backend="triton")
    expected = sum(x.double() @ x.double().T for x in xs)
    torch.testing.assert_close(out.triu().double(), expected.triu(), rtol=1e-5, atol=1e-5)


def test_in_a_graph_segments_are_added_one_by_one_without_tables(interpreted, monkeypatch):
    monkeypatch.setattr(triton_kernel, "table", None)
    xs = [torch.randn(9, length, generator=torch.Generator().manual_seed(length)) for length in (32, 0, 7)]
    ys = [torch.randn(4, length, generator=torch.Generator().manual_seed(length)) for length in (32, 0, 7)]
    out, cross = torch.zeros(9, 9), torch.zeros(9, 4)
    with as_if_recorded():
        ops.grouped_gram_(out, xs, backend="triton")
        ops.grouped_gram_(cross, xs, ys, backend="triton")
    torch.testing.assert_close(out.triu(), sum(x @ x.T for x in xs).triu(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cross, sum(x @ y.T for x, y in zip(xs, ys)), rtol=1e-5, atol=1e-5)


def test_one_launch_does_what_many_do(interpreted, monkeypatch):
    monkeypatch.setattr(config, "sums", lambda device: (1 << 20, 1 << 20))  # no splitting: the same order of sums
    xs = [torch.randn(9, length, generator=torch.Generator().manual_seed(length)) for length in (32, 48)]
    together = ops.grouped_gram_(torch.zeros(9, 9), xs, backend="triton")
    joined = ops.gram_(torch.zeros(9, 9), torch.cat(xs, 1), backend="triton")
    assert torch.equal(together.triu(), joined.triu())


@pytest.mark.parametrize("lengths", [(1,), (100,), (5, 0, 33, 1), (4096, 7, 7, 7, 100_000), (0, 64)])
@pytest.mark.parametrize("parts", [1, 3, 50])
def test_every_term_is_added_once_and_every_sum_is_written(lengths, parts):
    cut = schedule(lengths, parts, 16, 1024)
    assert 1 <= len(cut) <= parts
    assert len({len(part) for part in cut}) == 1
    pieces = [piece for part in cut for piece in part if piece.terms]
    for segment, length in enumerate(lengths):
        own = [piece for piece in pieces if piece.segment == segment]
        assert [piece.start for piece in own] == [0, *(piece.start + piece.terms for piece in own)][: len(own)]
        assert sum(piece.terms for piece in own) == length
        assert all(piece.start % 16 == 0 for piece in own)
    for part in cut:
        real = [piece for piece in part if piece.terms]
        kinds = [piece.written for piece in real if piece.written != NOT_YET]
        assert kinds == [FIRST] + [LATER] * (len(kinds) - 1)
        assert real[-1].written != NOT_YET
        assert sums_between_writes(real) <= 1024


def sums_between_writes(pieces) -> int:
    """The most terms, in whole steps, that are added before a write."""
    longest = current = 0
    for piece in pieces:
        current += -(-piece.terms // 16) * 16
        longest = max(longest, current)
        if piece.written != NOT_YET:
            current = 0
    return longest


def test_parts_do_equal_work():
    cut = schedule((10_000, 16, 16, 3000), 7, 16, 4096)
    work = [sum(piece.terms for piece in part) for part in cut]
    assert max(work) - min(work) <= 7 * 16
