"""`conv_input_grad`: against autograd, at the edges of Winograd's tiles, writing in place, accuracy, refusals."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from tests.ops.helpers import EACH_BACKEND, EACH_ISA, randn, relative
from twophase_fast import ops
from twophase_fast._types import BackendError, InputError
from twophase_fast.ops.conv_input_grad import reference

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
GEOMETRIES = [
    # spatial, Cin, Cout, kernel, stride, padding, dilation, groups
    ((9,), 4, 6, 3, 1, 1, 1, 1),
    ((11,), 4, 6, 2, 3, 2, 2, 2),
    ((8, 9), 3, 5, 3, 1, 1, 1, 1),
    ((8, 9), 3, 5, 3, 1, 3, 1, 1),
    ((8, 9), 3, 5, 3, (1, 2), 1, 1, 1),
    ((8, 9), 4, 8, (3, 2), (2, 1), (0, 2), (1, 3), 2),
    ((7, 7), 6, 6, 3, 2, 1, 1, 6),
    ((8, 8), 6, 6, 3, 1, 1, 1, 6),
    ((7, 7), 3, 9, 3, 1, 0, 2, 3),
    ((5, 6), 4, 2, 1, 2, 0, 1, 1),
    ((6, 7), 4, 2, 1, 3, 0, 1, 1),
    ((6, 7), 5, 4, 1, 1, 0, 1, 1),
    ((10, 13), 2, 3, 5, 3, 2, 1, 1),
    ((90, 60), 2, 3, (5, 2), 1, (2, 0), 1, 1),
    ((3, 4, 5), 2, 4, 2, 1, 1, 1, 2),
]


@EACH_BACKEND
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_equals_autograd(geometry, backend):
    spatial, cin, cout, kernel, stride, padding, dilation, groups = geometry
    if backend == "cpu" and len(spatial) == 3:
        backend = None  # the C++ kernel takes 1 or 2 axes; the first backend that fits takes over
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    taps = kernel if isinstance(kernel, tuple) else (kernel,) * len(spatial)
    weight, x = randn(0, cout, cin // groups, *taps), randn(1, 5, cin, *spatial).requires_grad_()
    z = CONVOLUTIONS[len(spatial)](x, weight, **options)
    g = randn(2, *z.shape)
    (exact,) = torch.autograd.grad(z, x, g)
    got = ops.conv_input_grad(g, weight, spatial, **options, backend=backend)
    torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)
    out = randn(3, *x.shape)
    expected = out + exact
    assert ops.conv_input_grad_(out, g, weight, **options, add=True, backend=backend) is out
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


@EACH_ISA
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_images_smaller_and_larger_than_a_tile(padding, isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    weight = randn(4, 12, 11, 3, 3)
    for height, width in itertools.product([1, 2, 3, 4, 5, 8], repeat=2):
        places = (height + 2 * padding - 2, width + 2 * padding - 2)
        if min(places) < 1:
            continue
        g, out = randn(5, 7, 12, *places), torch.full((7, 11, height, width), torch.nan, dtype=torch.float64)
        exact = ops.conv_input_grad(g, weight, (height, width), padding=padding, backend="reference")
        ops.conv_input_grad_(out, g, weight, padding=padding, backend="cpu")
        torch.testing.assert_close(out, exact, rtol=1e-13, atol=1e-13)
        ops.conv_input_grad_(out, g, weight, padding=padding, add=True, backend="cpu")
        torch.testing.assert_close(out, 2 * exact, rtol=1e-13, atol=1e-13)


@EACH_ISA
@pytest.mark.parametrize(
    ("cin", "cout"), [(1, 1), (1, 17), (17, 3), (3, 17), (35, 1), (4, 17), (17, 8), (8, 17), (50, 70)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_channels_that_fill_no_register(dtype, cin, cout, isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    weight, g = randn(6, cout, cin, 3, 3, dtype=dtype), randn(7, 5, cout, 6, 7, dtype=dtype)
    exact = ops.conv_input_grad(g.double(), weight.double(), (6, 7), padding=1, backend="reference")
    got = ops.conv_input_grad(g, weight, (6, 7), padding=1, backend="cpu")
    assert relative(got, exact) < 4 * torch.finfo(dtype).eps


MIXED = [  # enough images, rows and columns for tiles of 4x2: places, Cin, Cout, padding
    ((12, 11), 17, 11, 0),
    ((19, 13), 9, 15, 0),
    ((9, 11), 33, 16, 1),
    ((8, 10), 8, 31, 1),
    ((13, 9), 16, 16, 1),
    ((8, 9), 13, 10, 2),
    ((11, 8), 20, 24, 2),
]


@EACH_ISA
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("size", "cin", "cout", "padding"), MIXED)
def test_tiles_of_four_rows_and_two_columns(size, cin, cout, padding, dtype, isa, monkeypatch):
    """One image alone is pulled back by smaller tiles, which shows in another rounding."""
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    places = [extent + 2 * padding - 2 for extent in size]
    g, weight = randn(22, 90, cout, *places, dtype=dtype), randn(23, cout, cin, 3, 3, dtype=dtype)
    exact = ops.conv_input_grad(g.double(), weight.double(), size, padding=padding, backend="reference")
    out = torch.full(exact.shape, torch.nan, dtype=dtype)
    ops.conv_input_grad_(out, g, weight, padding=padding, backend="cpu")
    assert relative(out, exact) < 5 * torch.finfo(dtype).eps
    alone = ops.conv_input_grad(g[:1], weight, size, padding=padding, backend="cpu")
    assert torch.equal(out[:1], alone) == (isa == "scalar")
    ops.conv_input_grad_(out, g, weight, padding=padding, add=True, backend="cpu")
    assert relative(out, 2 * exact) < 5 * torch.finfo(dtype).eps


SHAPES = [  # Cout, Cin, side, padding, images: few images take tiles of 2x2, many of at least 8x8 tiles of 4x2
    (16, 16, 32, 1, 3),
    (64, 64, 8, 1, 3),
    (32, 32, 15, 0, 3),
    (128, 256, 4, 1, 3),
    (512, 512, 2, 1, 3),
    (1024, 64, 4, 1, 3),
    (16, 16, 32, 1, 8),
    (32, 32, 16, 1, 15),
    (64, 64, 8, 1, 60),
    (64, 64, 10, 0, 90),
    (128, 128, 8, 1, 56),
    (256, 32, 8, 1, 60),
    (64, 64, 4, 1, 150),
    (288, 32, 8, 1, 60),
]


@EACH_ISA
@pytest.mark.parametrize("active", [0.5, 1.0])
@pytest.mark.parametrize(("cout", "cin", "side", "padding", "images"), SHAPES)
def test_winograd_is_at_most_twice_as_wrong_as_torch(cout, cin, side, padding, images, active, isa, monkeypatch):
    """Dense cotangents, and those below a ReLU, of which half vanish."""
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    places = side + 2 * padding - 2
    g = randn(8, images, cout, places, places, dtype=torch.float32)
    g *= torch.rand(g.shape[1:], generator=torch.Generator().manual_seed(10)) < active
    weight = randn(9, cout, cin, 3, 3, dtype=torch.float32)
    options = {"size": (side, side), "padding": padding}
    some = slice(0, 16)
    exact = ops.conv_input_grad(g[some].double(), weight.double(), **options, backend="reference")
    by_torch = ops.conv_input_grad(g[some], weight, **options, backend="reference")
    got = ops.conv_input_grad(g, weight, **options, backend="cpu")[some]
    assert 0 < relative(got, exact) <= 2 * relative(by_torch, exact)


@EACH_ISA
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_large_tiles_keep_what_precision_high_promises(dtype, isa, monkeypatch):
    """There are enough images for large tiles to be chosen, which shows in another rounding."""
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    for cin, cout, padding, size in (
        (9, 15, 1, (8, 8)),
        (33, 16, 0, (9, 8)),
        (13, 10, 2, (3, 16)),
        (8, 64, 1, (4, 16)),
    ):
        places = [extent + 2 * padding - 2 for extent in size]
        g, weight = randn(8, 130, cout, *places, dtype=dtype), randn(9, cout, cin, 3, 3, dtype=dtype)
        exact = ops.conv_input_grad(g.double(), weight.double(), size, padding=padding, backend="reference")
        high = ops.conv_input_grad(g, weight, size, padding=padding, precision="high", backend="cpu")
        assert relative(high, exact) < 12 * torch.finfo(dtype).eps
        out = randn(10, *exact.shape, dtype=dtype)
        total = out.double() + exact
        ops.conv_input_grad_(out, g, weight, padding=padding, add=True, precision="high", backend="cpu")
        assert relative(out, total) < 12 * torch.finfo(dtype).eps
        if isa != "scalar":
            assert not torch.equal(high, ops.conv_input_grad(g, weight, size, padding=padding, backend="cpu"))


@EACH_ISA
@pytest.mark.parametrize("shape", [(3, 512, 160, 2), (3, 40, 33, 9), (90, 24, 20, 11)], ids=str)
def test_threads_do_not_change_a_bit(shape, isa, monkeypatch):
    """Few tiles of many channels, which threads share by channels, and many tiles, of 2x2 and 4x2 results."""
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    images, cout, cin, side = shape
    g = randn(16, images, cout, side, side, dtype=torch.float32)
    weight = randn(17, cout, cin, 3, 3, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(ops.conv_input_grad(g, weight, (side, side), padding=1, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@EACH_BACKEND
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("cin", "cout"), [(3, 4), (11, 12)])
def test_images_apart_from_each_other_are_written_and_nothing_else(cin, cout, stride, backend):
    weight, side = randn(10, cout, cin, 3, 3), 9 if stride == 1 else 5
    g, end = randn(11, 6, 2, cout, side, side)[:, 1], 100 + cin * 81
    room = torch.full((6, end + 157), torch.nan, dtype=torch.float64)
    out = room[:, 100:end].view(6, cin, 9, 9)
    exact = ops.conv_input_grad(g, weight, (9, 9), padding=1, stride=stride, backend="reference")
    ops.conv_input_grad_(out, g, weight, padding=1, stride=stride, backend=backend)
    torch.testing.assert_close(out, exact, rtol=1e-12, atol=1e-12)
    assert room[:, :100].isnan().all()
    assert room[:, end:].isnan().all()


@EACH_BACKEND
def test_rows_and_columns_that_no_cotangent_reaches_are_zero(backend):
    g, weight = randn(12, 2, 3, 2, 2), randn(13, 3, 2, 2, 2)
    got = ops.conv_input_grad(g, weight, (7, 6), stride=4, backend=backend)
    assert (got[:, :, [2, 3, 6]] == 0).all()
    assert (got[:, :, :, [2, 3]] == 0).all()
    out = torch.ones_like(got)
    ops.conv_input_grad_(out, g, weight, stride=4, add=True, backend=backend)
    assert (out[:, :, [2, 3, 6]] == 1).all()


@pytest.mark.parametrize(
    ("backend", "precision"), [("reference", "highest"), ("library", "highest"), ("library", "medium")]
)
def test_torch_convolves_in_ieee_arithmetic(backend, precision, monkeypatch):
    conv, seen, plain = torch.backends.cudnn.conv, [], reference._TRANSPOSED[2]
    if not hasattr(conv, "fp32_precision"):
        pytest.skip("this torch has no such switch for convolutions")

    def spy(*arguments):
        seen.append(conv.fp32_precision)
        return plain(*arguments)

    monkeypatch.setitem(reference._TRANSPOSED, 2, spy)
    before = conv.fp32_precision
    try:
        conv.fp32_precision = "tf32"
        options = {"padding": 1, "precision": precision, "backend": backend}
        ops.conv_input_grad(randn(20, 1, 2, 4, 4), randn(21, 2, 2, 3, 3), (4, 4), **options)
        assert seen == ["ieee"]
        assert conv.fp32_precision == "tf32"
    finally:
        conv.fp32_precision = before


def test_three_spatial_axes_name_the_reason():
    with pytest.raises(BackendError, match="cpu: 3 spatial axes"):
        ops.conv_input_grad(randn(14, 1, 1, 2, 2, 2), randn(15, 1, 1, 2, 2, 2), (3, 3, 3), backend="cpu")


BAD = [
    ({"size": (6,)}, r"size \(6,\)"),
    ({"size": (6, 0)}, r"size \(6, 0\)"),
    ({"size": (6, 7)}, r"gives \[6, 7\]"),
    ({"stride": 0}, r"stride=0"),
    ({"padding": "same"}, r"padding='same'"),
    ({"padding": 0}, r"gives \[4, 4\]"),
    ({"dilation": (1, 1, 1)}, r"dilation=\(1, 1, 1\)"),
    ({"dilation": 9}, r"output positions"),
    ({"groups": 3}, r"groups=3"),
    ({"precision": "fast"}, r"precision='fast'"),
    ({"g": randn(16, 2, 4, 6, 6, dtype=torch.float32)}, r"float32"),
    ({"g": randn(16, 2, 3, 6, 6)}, r"output channels"),
    ({"g": randn(16, 4, 6)}, r"g has shape \(4, 6\)"),
    ({"weight": randn(17, 4, 2, 3)}, r"weight has shape \(4, 2, 3\)"),
    ({"weight": randn(17, 4, 2, 3, 0)}, r"at least one channel and one tap"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_contradicts_itself_is_refused(change, message):
    inputs = {"g": randn(16, 2, 4, 6, 6), "weight": randn(17, 4, 2, 3, 3), "size": (6, 6), "padding": 1}
    with pytest.raises(InputError, match=message):
        ops.conv_input_grad(**{**inputs, **change})


def test_a_bad_out_is_refused():
    g, weight = randn(18, 2, 4, 6, 6), randn(19, 4, 2, 3, 3)
    good = torch.zeros(2, 2, 6, 6, dtype=torch.float64)
    for out in (good[:1], good[:, :1], good.float(), good[:1].expand(2, 2, 6, 6), good.clone().requires_grad_()):
        with pytest.raises(InputError, match="out"):
            ops.conv_input_grad_(out, g, weight, padding=1)
