"""`per_sample_grad` and its convolution in Triton: geometries, modes and layouts against the float64 reference."""

import pytest
import torch

pytest.importorskip("triton")

from tests.ops.test_op_properties import column_major, spread_out
from tests.ops.triton.checks import PLATFORMS, assert_accurate, assert_repeatable, case_of, on_platform
from twophase_fast import ops
from twophase_fast.ops.per_sample_grad import triton_kernel
from twophase_fast.ops.per_sample_grad.config import CONV, FEW_POSITIONS, LINEAR

pytestmark = pytest.mark.usefixtures("interpreted")
FLOATS = [torch.float32, torch.float64]
NAMES = ["per_sample_grad", "per_sample_grad_out"]
LINEAR_BASE = {"n": 2, "c": 3, "t": 4, "d": 9, "p": 5}
LINEAR_SHAPES = [
    {},
    {"t": 1},
    {"t": FEW_POSITIONS},
    {"t": FEW_POSITIONS + 1},
    {"t": 33, "d": 17, "p": 7},
    {"c": 1, "d": 33},
    *({empty: 0} for empty in ("n", "t", "p", "d")),
]
CONV_BASE = {"n": 2, "c": 2, "groups": 1, "cin": 3, "cout": 4, "dims": 2, "size": 5}
TAPS = {"kernel": 3, "stride": 1, "padding": 1, "dilation": 1}
GEOMETRIES = [
    {},
    {"groups": 3, "cin": 1, "cout": 1},
    {"groups": 2, "cin": 2, "cout": 3, "stride": 2},
    {"kernel": 1, "padding": 0, "cin": 17},
    {"kernel": 2, "padding": 3, "dilation": 2, "stride": 3},
    {"c": 7, "size": 9},
    {"dims": 1, "size": 17, "stride": 2},
    {"dims": 3, "n": 1, "size": 2, "kernel": 2},
    {"n": 0},
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_linear_at_odd_sizes(name, dtype):
    for shape in LINEAR_SHAPES:
        assert_accurate(case_of(name), {**LINEAR_BASE, **shape}, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_convolution_geometries(geometry, dtype):
    assert_accurate(case_of("per_sample_conv_grad"), {**CONV_BASE, **TAPS, **geometry}, dtype)


@pytest.mark.parametrize("geometry", GEOMETRIES[1::3], ids=str)
def test_convolution_into_the_columns_of_a_jacobian(geometry):
    assert_accurate(case_of("per_sample_conv_grad_out"), {**CONV_BASE, **TAPS, **geometry}, torch.float32)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_every_mode(precision, platform, monkeypatch):
    on_platform(monkeypatch, platform)
    for name, sizes in (
        ("per_sample_grad", {**LINEAR_BASE, "t": 20}),
        ("per_sample_grad", LINEAR_BASE),
        ("per_sample_conv_grad", {**CONV_BASE, **TAPS}),
    ):
        assert_accurate(case_of(name), sizes, torch.float32, precision)


@pytest.mark.parametrize("layout", [spread_out, column_major])
def test_strides_do_not_matter(layout):
    for name, sizes in (
        ("per_sample_grad", {**LINEAR_BASE, "t": 20}),
        ("per_sample_grad", LINEAR_BASE),
        ("per_sample_conv_grad", {**CONV_BASE, **TAPS, "groups": 2}),
        ("per_sample_conv_grad", {**CONV_BASE, **TAPS, "dims": 3, "size": 2, "n": 1}),
    ):
        assert_accurate(case_of(name), sizes, torch.float32, layout=layout)


def test_a_slice_of_output_channels_gives_that_slice():
    generator = torch.Generator().manual_seed(0)
    x, g = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 2, 6, 4, 4, generator=generator)
    whole = ops.per_sample_conv_grad(x, g, 3, padding=1, backend="reference")
    part = ops.per_sample_conv_grad(x, g[:, :, 1:4], 3, padding=1, backend="triton")
    torch.testing.assert_close(part, whole[:, :, 1:4])


def test_repeats_are_bitwise_equal():
    assert_repeatable(case_of("per_sample_grad"), {**LINEAR_BASE, "t": 40}, torch.float32)
    assert_repeatable(case_of("per_sample_conv_grad"), {**CONV_BASE, **TAPS}, torch.float32)


@pytest.mark.parametrize("key", [key for key in LINEAR.rows if key[0] in ("ieee", "tf32x3")], ids="-".join)
def test_launch_configurations_that_a_gpu_takes(key, monkeypatch):
    """Blocks larger than the operands, and cut by them."""
    dtype = getattr(torch, key[1])
    monkeypatch.setattr(triton_kernel.LaunchTable, "choose", lambda table, row, *_: table.rows[row][0])
    monkeypatch.setattr(triton_kernel.modes, "mode", lambda *_: key[0])
    for name, sizes in (
        ("per_sample_grad", {**LINEAR_BASE, "t": 1, "p": 50, "d": 140}),
        ("per_sample_grad", {**LINEAR_BASE, "t": 40, "p": 50, "d": 70}),
        ("per_sample_conv_grad", {**CONV_BASE, **TAPS, "cin": 10, "cout": 70}),
    ):
        assert_accurate(case_of(name), sizes, dtype, "high")
    assert key in CONV.rows
