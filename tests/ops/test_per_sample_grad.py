"""`per_sample_grad`, `per_sample_conv_grad`: against autograd on each sample, writing into Jacobians, refusals."""

import pytest
import torch
import torch.nn.functional as F

from tests.ops.helpers import EACH_BACKEND, EACH_ISA, randn, relative
from twophase_fast import _native, ops
from twophase_fast._types import BackendError, InputError

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
GEOMETRIES = [
    # spatial, Cin, Cout, kernel, stride, padding, dilation, groups
    ((9,), 4, 6, 3, 1, 1, 1, 1),
    ((11,), 4, 6, 2, 3, 2, 2, 2),
    ((8, 9), 3, 5, 3, 1, 1, 1, 1),
    ((8, 9), 4, 8, (3, 2), (2, 1), (0, 2), (1, 3), 2),
    ((7, 7), 6, 6, 3, 2, 1, 1, 6),
    ((7, 7), 3, 9, 3, 1, 0, 2, 3),
    ((5, 6), 4, 2, 1, 2, 0, 1, 1),
    ((2, 2), 3, 3, 3, 1, 1, 1, 1),
    ((1, 1), 2, 3, 3, 1, 1, 1, 1),
    ((3, 4, 5), 2, 4, 2, 1, 1, 1, 2),
]


def by_autograd(function, weight, samples, cotangents):
    """The gradient of every sample and cotangent with respect to the weight, one backward pass each."""
    rows = []
    for sample, of_sample in zip(samples, cotangents):
        z = function(sample.unsqueeze(0), weight)
        rows.append([torch.autograd.grad(z, weight, v.unsqueeze(0), retain_graph=True)[0] for v in of_sample])
    return torch.stack([torch.stack(row) for row in rows])


@EACH_BACKEND
def test_linear_equals_autograd(backend):
    a, g, weight = randn(0, 4, 6, 5), randn(1, 4, 3, 6, 7), randn(2, 7, 5).requires_grad_()
    exact = by_autograd(F.linear, weight, a, g)
    torch.testing.assert_close(ops.per_sample_grad(a, g, backend=backend), exact, rtol=1e-13, atol=1e-13)


@EACH_BACKEND
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_convolution_equals_autograd(geometry, backend):
    spatial, cin, cout, kernel, stride, padding, dilation, groups = geometry
    if backend == "cpu" and len(spatial) == 3:
        backend = None  # the C++ kernel takes 1 or 2 axes; the first backend that fits takes over
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    taps = kernel if isinstance(kernel, tuple) else (kernel,) * len(spatial)
    weight = randn(0, cout, cin // groups, *taps).requires_grad_()
    x = randn(1, 3, cin, *spatial)

    def convolution(sample, w):
        return CONVOLUTIONS[len(spatial)](sample, w, **options)

    g = randn(2, 3, 2, *convolution(x, weight).shape[1:])
    exact = by_autograd(convolution, weight, x, g)
    got = ops.per_sample_conv_grad(x, g, kernel, **options, backend=backend)
    torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)


@EACH_BACKEND
def test_a_slice_of_output_channels_gives_that_slice(backend):
    x, g = randn(3, 2, 3, 6, 6), randn(4, 2, 4, 8, 6, 6)
    whole = ops.per_sample_conv_grad(x, g, 3, padding=1, backend="reference")
    part = ops.per_sample_conv_grad(x, g[:, :, 2:5], 3, padding=1, backend=backend)
    torch.testing.assert_close(part, whole[:, :, 2:5], rtol=1e-13, atol=1e-13)


@EACH_BACKEND
def test_writes_into_the_columns_of_a_jacobian_and_nowhere_else(backend):
    n, c = 3, 2
    a, g = randn(5, n, 4, 9), randn(6, n, c, 4, 5)
    x, gx = randn(7, n, 2, 6, 5), randn(8, n, c, 3, 6, 5)
    jacobian = torch.full((n * c, 120), torch.nan, dtype=torch.float64)
    linear = jacobian[:, 3:48].view(n, c, 5, 9)
    conv = jacobian[:, 50:104].view(n, c, 3, 2, 3, 3)
    assert ops.per_sample_grad(a, g, out=linear, backend=backend) is linear
    assert ops.per_sample_conv_grad(x, gx, 3, padding=1, out=conv, backend=backend) is conv
    torch.testing.assert_close(linear, ops.per_sample_grad(a, g, backend="reference"))
    torch.testing.assert_close(conv, ops.per_sample_conv_grad(x, gx, 3, padding=1, backend="reference"))
    for untouched in (jacobian[:, :3], jacobian[:, 48:50], jacobian[:, 104:]):
        assert untouched.isnan().all()


def test_three_spatial_axes_name_the_reason():
    x, g = randn(9, 1, 1, 3, 3, 3), randn(10, 1, 1, 1, 2, 2, 2)
    with pytest.raises(BackendError, match="cpu: 3 spatial axes"):
        ops.per_sample_conv_grad(x, g, 2, backend="cpu")


BAD_LINEAR = [
    (lambda a, g: (a[0], g), r"a has shape"),
    (lambda a, g: (a, g[:2]), r"samples"),
    (lambda a, g: (a, g[:, :, :3]), r"positions"),
    (lambda a, g: (a, g.float()), r"float32"),
    (lambda a, g: (a.to_sparse(), g), r"dense"),
]


@pytest.mark.parametrize(("make", "message"), BAD_LINEAR)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(InputError, match=message):
        ops.per_sample_grad(*make(randn(11, 3, 4, 5), randn(12, 3, 2, 4, 6)))


BAD_CONV = [
    ({"kernel_size": 0}, r"kernel_size=0"),
    ({"kernel_size": (3, 3, 3)}, r"kernel_size=\(3, 3, 3\)"),
    ({"stride": 0}, r"stride=0"),
    ({"padding": "same"}, r"padding='same'"),
    ({"padding": -1}, r"padding=-1"),
    ({"dilation": 9}, r"output positions"),
    ({"padding": 0}, r"gives \[4, 4\]"),
    ({"groups": 4}, r"groups=4"),
    ({"precision": "fast"}, r"precision='fast'"),
]


@pytest.mark.parametrize(("change", "message"), BAD_CONV, ids=str)
def test_a_convolution_that_contradicts_the_shapes_is_refused(change, message):
    x, g = randn(13, 2, 2, 6, 6), randn(14, 2, 3, 4, 6, 6)
    options = {"kernel_size": 3, "padding": 1, **change}
    with pytest.raises(InputError, match=message):
        ops.per_sample_conv_grad(x, g, **options)


def test_a_bad_out_is_refused():
    a, g = randn(15, 3, 4, 5), randn(16, 3, 2, 4, 6)
    good = torch.zeros(3, 2, 6, 5, dtype=torch.float64)
    for out in (good[:2], good.float(), good[:1].expand(3, 2, 6, 5), torch.zeros(3, 2, 5, 6, dtype=torch.float64).mT):
        with pytest.raises(InputError, match="out"):
            ops.per_sample_grad(a, g, out=out)


@EACH_ISA
@pytest.mark.parametrize("width", [1024, 1021])
def test_results_beyond_the_caches(width, isa, monkeypatch):
    """Large results with aligned rows are written past the caches."""
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    a, g = randn(17, 2, 2, width, dtype=torch.float32), randn(18, 2, 8, 2, 420, dtype=torch.float32)
    got = ops.per_sample_grad(a, g, backend="cpu")
    assert got.nbytes > 24 << 20
    torch.testing.assert_close(got, ops.per_sample_grad(a, g, backend="reference"), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("isa", [isa for isa in _native.available_isas() if isa != "scalar"])
def test_jacobians_of_convolutions_beyond_the_caches(isa, monkeypatch):
    """More than 24 MiB, rows that fill no panel."""
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    x, g = randn(30, 9, 64, 8, 8, dtype=torch.float32), randn(31, 9, 10, 130, 8, 8, dtype=torch.float32)
    patches = F.unfold(x, 3, padding=1)
    exact = torch.einsum("ncot,ndt->ncod", g.flatten(3), patches)
    assert exact.numel() * 4 > 24 * 2**20
    got = ops.per_sample_conv_grad(x, g, (3, 3), padding=1, backend="cpu")
    torch.testing.assert_close(got.flatten(3), exact, rtol=1e-4, atol=1e-4)


@EACH_ISA
@pytest.mark.parametrize(
    ("channels", "size", "padding"), [(16, 32, 1), (32, 16, 1), (64, 8, 1), (32, 30, 0), (17, 11, 2)]
)
def test_minimal_filtering_is_as_accurate_as_plain_torch(channels, size, padding, isa, monkeypatch):
    """3x3 convolutions of residual networks: at most twice the error of plain torch, also where nothing cancels."""
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    x = randn(19, 2, channels, size, size, dtype=torch.float32)
    g = randn(20, 2, 2, channels, *[size + 2 * padding - 2] * 2, dtype=torch.float32)
    for images, cotangents in ((x, g), (x.abs() + 1, g.abs() + 1)):
        exact = ops.per_sample_conv_grad(images.double(), cotangents.double(), 3, padding=padding, backend="reference")
        ours, plain = (
            (ops.per_sample_conv_grad(images, cotangents, 3, padding=padding, backend=backend) - exact).norm()
            for backend in ("cpu", "reference")
        )
        assert 0 < ours <= 2 * plain


@EACH_ISA
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("cin", "cout", "size", "padding"),
    [(16, 16, (32, 32), 1), (3, 20, (17, 21), 1), (1, 9, (12, 30), 2), (33, 17, (26, 13), 0), (70, 16, (16, 16), 1)],
    ids=str,
)
def test_large_tiles_keep_what_precision_high_promises(cin, cout, size, padding, dtype, isa, monkeypatch):
    """Dense operands, and those of which half vanish; that large tiles were chosen shows in another rounding."""
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    places = [extent + 2 * padding - 2 for extent in size]
    x, g = randn(40, 2, cin, *size, dtype=dtype), randn(41, 2, 3, cout, *places, dtype=dtype)
    for images, cotangents in ((x, g), (x.relu(), g * (g[:, :1] > 0))):
        exact = ops.per_sample_conv_grad(images.double(), cotangents.double(), 3, padding=padding, backend="reference")
        got = {
            precision: ops.per_sample_conv_grad(
                images, cotangents, 3, padding=padding, precision=precision, backend="cpu"
            )
            for precision in ("highest", "high", "medium")
        }
        assert relative(got["high"], exact) < 12 * torch.finfo(dtype).eps
        assert torch.equal(got["high"], got["medium"])
        assert torch.equal(got["high"], got["highest"]) == (isa == "scalar")


@EACH_ISA
@pytest.mark.parametrize("size", [4, 6, 7, 8, 14, 33])
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_every_size_of_tile_leaves_what_lies_outside_alone(size, precision, isa, monkeypatch):
    """Images that fill no whole number of tiles, in memory full of NaN, with a step between rows and columns."""
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    x = torch.full((2, 5, size + 3, 2 * size + 1), torch.nan, dtype=torch.float64)[:, :, 1:-2, 1::2]
    g = torch.full((2, 3, 7, size + 1, 3 * size), torch.nan, dtype=torch.float64)[..., 1:, 2::3]
    x.copy_(randn(42, *x.shape)), g.copy_(randn(43, *g.shape))
    out = torch.full((2, 3, 7, 5, 3, 3), torch.nan, dtype=torch.float64)
    ops.per_sample_conv_grad(x, g, 3, padding=1, out=out, precision=precision, backend="cpu")
    exact = ops.per_sample_conv_grad(x, g, 3, padding=1, backend="reference")
    torch.testing.assert_close(out, exact, rtol=1e-12, atol=1e-12)


@EACH_ISA
def test_infinite_inputs_do_not_reach_taps_of_other_channels(isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    x, g = randn(21, 1, 9, 10, 10), randn(22, 1, 2, 9, 10, 10)
    finite = ops.per_sample_conv_grad(x, g, 3, padding=1, backend="cpu")
    x[0, 4, 3, 3] = torch.inf
    got = ops.per_sample_conv_grad(x, g, 3, padding=1, backend="cpu")
    assert not got[:, :, :, 4].isfinite().any()
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(got[:, :, :, others], finite[:, :, :, others])
