"""`random_projection` in Triton: its signs bit for bit, modes, slices and layouts against the float64 reference."""

import pytest
import torch

pytest.importorskip("triton")

from tests.ops.test_op_properties import column_major, spread_out
from tests.ops.triton.checks import PLATFORMS, assert_accurate, assert_repeatable, case_of, on_platform
from twophase_fast import ops
from twophase_fast.ops._triton.launch import launch
from twophase_fast.ops.random_projection import reference, triton_kernel
from twophase_fast.ops.random_projection.config import FULL_GRID, LAUNCHES, LEAST_SLICE

pytestmark = pytest.mark.usefixtures("interpreted")
FLOATS = [torch.float32, torch.float64]
BASE = {"r": 5, "p": 19, "d": 7}
SHAPES = [{}, {"r": 17, "d": 33}, {"p": 40, "d": 130}, {"p": 1}, {"r": 0}, {"p": 0}]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["random_projection", "random_projection_"])
def test_odd_sizes(name, dtype):
    for shape in SHAPES:
        assert_accurate(case_of(name), {**BASE, **shape}, dtype)


@pytest.mark.parametrize(("seed", "offset"), [(0, 0), (1, 16), (2**63 - 1, 2**32 - 5), (12345678901, 2**62)])
def test_the_signs_are_those_of_the_definition(seed, offset):
    eye = torch.eye(11)
    got = ops.random_projection(eye, 150, seed=seed, offset=offset, backend="triton")
    assert torch.equal(got, reference.signs(torch.arange(offset, offset + 11), 150, seed).float())


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_every_mode(precision, platform, monkeypatch):
    on_platform(monkeypatch, platform)
    assert_accurate(case_of("random_projection"), {**BASE, "p": 40}, torch.float32, precision)


@pytest.mark.parametrize("layout", [spread_out, column_major])
def test_strides_do_not_matter(layout):
    for name in ("random_projection", "random_projection_"):
        assert_accurate(case_of(name), BASE, torch.float32, layout=layout)


def test_slices_are_added_in_a_fixed_order(monkeypatch):
    monkeypatch.setattr(triton_kernel, "LEAST_SLICE", 7)
    assert triton_kernel.slices(5, 37, 7, LAUNCHES.interpreted)[0] == 5
    for name in ("random_projection", "random_projection_"):
        assert_accurate(case_of(name), {**BASE, "p": 37}, torch.float32)
    assert_repeatable(case_of("random_projection"), {**BASE, "p": 37}, torch.float32)


@pytest.mark.parametrize("rows", [1, 640, 100_000])
@pytest.mark.parametrize("depth", [1, LEAST_SLICE, 10_000_001])
def test_slices_cover_the_terms(rows, depth):
    chosen = launch(ROWS=64, COLUMNS=64)
    count, length = triton_kernel.slices(rows, depth, 1024, chosen)
    assert (count - 1) * length < depth <= count * length
    assert count == 1 or length >= LEAST_SLICE
    assert count == 1 or count * -(-rows // 64) * 16 <= FULL_GRID


@pytest.mark.parametrize("key", LAUNCHES.rows, ids="-".join)
def test_launch_configurations_that_a_gpu_takes(key):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 37, generator=generator).to(getattr(torch, key[1]))
    exact = ops.random_projection(x.double(), 70, seed=5, offset=9, backend="reference")
    out = torch.zeros(1, 40, 70, dtype=x.dtype)
    triton_kernel._start(out, x, 5, 9, 37, key[0], LAUNCHES.rows[key][0], add=True)
    assert (out[0].double() - exact).norm() <= 2e-3 * exact.norm()
