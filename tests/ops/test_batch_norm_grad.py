"""`batch_norm_grad`, `relu_grad_`: against autograd, NaN behind a closed ReLU, where results go, refusals."""

import pytest
import torch
import torch.nn.functional as F

from tests.ops.helpers import EACH_ISA, EACH_TIER, force, randn
from twophase_fast import ops
from twophase_fast._types import InputError

SHAPES = [(), (7,), (2, 2), (3, 3), (4, 4), (7, 7), (2, 3, 4)]
EPS = 1e-5


def problem(spatial, samples=2, classes=3, channels=19, dtype=torch.float64):
    """Cotangents, inputs, running mean and variance, weight, bias."""
    x = randn(0, samples, channels, *spatial, dtype=dtype)
    g = randn(1, samples, classes, channels, *spatial, dtype=dtype)
    mean, variance, weight, bias = (randn(seed, channels, dtype=dtype) for seed in range(2, 6))
    return g, x, mean, variance.abs() + 0.1, weight, bias


def by_autograd(g, x, mean, variance, weight, bias, relu):
    """One backward pass per sample and cotangent, with a weight and a bias of their own."""
    rows = []
    for sample, of_sample in zip(x, g):
        for v in of_sample:
            leaves = [t.clone().requires_grad_() for t in (sample.unsqueeze(0), weight, bias)]
            y = F.batch_norm(leaves[0], mean, variance, leaves[1], leaves[2], eps=EPS)
            rows.append(torch.autograd.grad(F.relu(y) if relu else y, leaves, v.unsqueeze(0)))
    images, weights, biases = zip(*rows)
    return [torch.stack(list(part)).view(*g.shape[:2], *part[0].shape[-1:]) for part in (weights, biases)] + [
        torch.cat(images).view_as(g)
    ]


@EACH_TIER
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("spatial", SHAPES, ids=str)
def test_equals_autograd(spatial, relu, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    g, x, mean, variance, weight, bias = problem(spatial)
    of_weight, of_bias, exact = by_autograd(g, x, mean, variance, weight, bias, relu)
    result = F.relu(F.batch_norm(x, mean, variance, weight, bias, eps=EPS)) if relu else None
    got = ops.batch_norm_grad(g, x, mean, (variance + EPS).rsqrt(), weight, relu=result, backend=backend)
    for value, expected in zip(got, (exact, of_weight, of_bias), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@EACH_TIER
@pytest.mark.parametrize("positions", [1, 3, 4, 16, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_closed_relu_stops_nan_and_infinity_and_lets_them_through_open(positions, dtype, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    g, x, mean, variance, weight, _ = problem((positions,), dtype=dtype)
    relu = x.clamp_min(0)
    g[:, 0], g[:, 1] = torch.nan, torch.inf
    out, _, of_bias = ops.batch_norm_grad(g, x, mean, variance, weight, relu=relu, backend=backend)
    closed = (relu == 0).unsqueeze(1).expand_as(g)
    assert closed.any()
    assert (out[closed] == 0).all()
    assert torch.equal(out[:, 0].isnan(), ~closed[:, 0])
    assert torch.equal(of_bias[:, 0].isnan(), ~closed[:, 0].all(-1))
    gated = ops.relu_grad_(g.clone(), relu, backend=backend)
    assert (gated[closed] == 0).all()
    assert torch.equal(gated[~closed].nan_to_num(7.0), g[~closed].nan_to_num(7.0))


@EACH_TIER
def test_relu_equals_autograd_also_at_nan_and_minus_zero(tier, monkeypatch):
    backend = force(tier, monkeypatch)
    x = randn(6, 2, 35)
    x[0, :3], x[1, :3] = torch.tensor([torch.nan, -0.0, 0.0]), torch.tensor([torch.inf, -torch.inf, 1e-320])
    g = randn(7, 2, 4, 35)
    exact = torch.ops.aten.threshold_backward(g, x.unsqueeze(1).expand_as(g), 0)
    assert torch.equal(ops.relu_grad_(g.clone(), x, backend=backend), exact)
    ones = torch.ones(35, dtype=g.dtype)
    out, _, _ = ops.batch_norm_grad(g, x.clamp(-1, 1).nan_to_num(), 0 * ones, ones, relu=x, backend=backend)
    assert torch.equal(out, exact)


@EACH_TIER
@pytest.mark.parametrize("spatial", [(2, 2), (33,)], ids=str)
def test_in_place_and_into_memory_of_any_strides(spatial, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    g, x, mean, variance, weight, _ = problem(spatial)
    expected = ops.batch_norm_grad(g, x, mean, variance, weight, relu=x, backend=backend)
    strided = torch.full((*g.shape[::-1],), torch.nan, dtype=g.dtype).permute(*range(g.ndim)[::-1])
    for out, cotangents in ((strided, g), (same := g.clone(), same)):
        got = ops.batch_norm_grad(cotangents, x, mean, variance, weight, relu=x, out=out, backend=backend)
        assert got[0] is out
        assert all(torch.equal(a, b) for a, b in zip(got, expected))


@EACH_ISA
def test_results_beyond_the_caches(isa, monkeypatch):
    """Large results with aligned rows are written past the caches."""
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    g, x, mean, variance, weight, _ = problem((32, 32), 2, 10, 330, torch.float32)
    assert g.nbytes > 24 << 20
    for relu in (x, None):
        got = ops.batch_norm_grad(g, x, mean, variance, weight, relu=relu, backend="cpu")
        expected = ops.batch_norm_grad(g, x, mean, variance, weight, relu=relu, backend="reference")
        for value, exact in zip(got, expected, strict=True):
            torch.testing.assert_close(value, exact, rtol=1e-5, atol=1e-4)


G, X, K = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5), torch.zeros(4)
GOOD = {"g": G, "x": X, "mean": K, "rstd": K}
BAD = [
    ({"g": G[0, 0]}, r"g has shape \(4, 5\)"),
    ({"g": G.int()}, r"g has dtype torch.int32"),
    ({"x": X[:1]}, r"x has shape \(1, 4, 5\); expected \(2, 4, 5\)"),
    ({"mean": K[:3]}, r"mean has shape \(3,\); expected \(4,\)"),
    ({"rstd": K.double()}, r"rstd is torch.float64"),
    ({"weight": K.view(1, 4)}, r"weight has shape"),
    ({"relu": X[:, :2]}, r"relu has shape"),
    ({"relu": "yes"}, r"relu must be a torch.Tensor"),
    ({"out": G[:1]}, r"out has shape"),
    ({"out": G[:1].expand(2, 3, 4, 5)}, r"out is expanded"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input_is_refused_by_name(change, message):
    with pytest.raises(InputError, match=message):
        ops.batch_norm_grad(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("g", "relu", "message"),
    [
        (G[0, 0, 0], X, r"g has shape \(5,\)"),
        (G, X[:, :, :2], r"relu has shape"),
        (G.clone().requires_grad_(), X, r"g requires grad"),
        (G, X.double(), r"relu is torch.float64"),
    ],
)
def test_a_bad_relu_is_refused_by_name(g, relu, message):
    with pytest.raises(InputError, match=message):
        ops.relu_grad_(g, relu)
