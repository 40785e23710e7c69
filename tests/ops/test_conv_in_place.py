"""`conv_input_grad_` where the result takes the place of the cotangents: to the bit what it is elsewhere."""

import pytest
import torch

from tests.ops.helpers import EACH_BACKEND, EACH_ISA, randn
from twophase_fast import ops

PROBLEMS = [
    # images, channels, spatial, kernel, groups
    (5, 16, (9, 7), 3, 1),  # Winograd
    (3, 40, (33, 30), 3, 1),  # more than one panel of channels, images of many rows of tiles
    (70, 16, (8, 8), 3, 1),  # many images to a block
    (2, 300, (4, 4), 3, 1),  # many kernels, few tiles
    (4, 4, (9, 7), 3, 1),  # direct: few channels
    (4, 6, (9, 11), 5, 1),
    (4, 16, (9, 7), 3, 4),
    (3, 9, (12,), 3, 1),
]


def check(images, channels, spatial, kernel, groups, *, add, dtype=torch.float32, backend=None, large=False):
    g = randn(0, images, channels, *spatial, dtype=dtype)
    weight = randn(1, channels, channels // groups, *[kernel] * len(spatial), dtype=dtype)
    options = {"padding": kernel // 2, "groups": groups, "backend": backend, "add": add}
    options["precision"] = "high" if large else "highest"
    expected = ops.conv_input_grad_(g.clone() if add else torch.full_like(g, torch.nan), g, weight, **options)
    result = ops.conv_input_grad_(g, g, weight, **options)
    assert result is g
    torch.testing.assert_close(g, expected, rtol=0, atol=0)


@EACH_ISA
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_result_takes_the_place_of_the_cotangents(problem, add, isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    check(*problem, add=add)
    check(*problem, add=add, dtype=torch.float64)


@EACH_ISA
def test_larger_tiles(isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    check(3, 40, (33, 30), 3, 1, add=False, large=True)


@EACH_BACKEND
def test_every_backend_allows_it(backend):
    check(5, 16, (9, 7), 3, 1, add=True, backend=backend)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_that_share_the_images(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(61, 24, (17, 16), 3, 1, add=False)
    finally:
        torch.set_num_threads(before)


def test_images_that_lie_apart():
    whole, weight = randn(0, 7, 2, 16, 9, 8), randn(1, 16, 16, 3, 3)
    expected = ops.conv_input_grad(whole[:, 0], weight, (9, 8), padding=1)
    beside = whole[:, 1].clone()
    ops.conv_input_grad_(whole[:, 0], whole[:, 0], weight, padding=1)
    torch.testing.assert_close(whole[:, 0], expected, rtol=0, atol=0)
    torch.testing.assert_close(whole[:, 1], beside, rtol=0, atol=0)
