"""`layer_norm_grad`: against autograd, statistics as torch saves them, accuracy, where results go, refusals."""

import pytest
import torch
import torch.nn.functional as F

from tests.ops.helpers import EACH_ISA, EACH_TIER, force, randn
from twophase_fast import ops
from twophase_fast._types import InputError


def problem(positions=7, features=19, dtype=torch.float64, samples=2, classes=3, mean=0.5):
    """Cotangents, inputs, weight, and the statistics as torch saves them."""
    x = mean + randn(0, samples, positions, features, dtype=dtype)
    g, weight = randn(1, samples, classes, positions, features, dtype=dtype), randn(2, features, dtype=dtype)
    _, means, rstd = torch.native_layer_norm(x, [features], weight, None, 1e-5)
    return g, x, means, rstd, weight


def by_autograd(g, x, weight):
    """One backward pass per sample and cotangent, with a weight and a bias of their own."""
    rows = []
    for sample, of_sample in zip(x, g):
        for v in of_sample:
            leaves = [t.clone().requires_grad_() for t in (sample, weight, torch.zeros_like(weight))]
            y = F.layer_norm(leaves[0], weight.shape, leaves[1], leaves[2])
            rows.append(torch.autograd.grad(y, leaves, v))
    parts = zip(*rows)
    return [torch.stack(part).view(*g.shape[:2], *part[0].shape) for part in parts]


@EACH_TIER
@pytest.mark.parametrize("positions", [1, 7, 70])
@pytest.mark.parametrize("features", [2, 19, 48])
def test_equals_autograd(features, positions, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    g, x, mean, rstd, weight = problem(positions, features)
    assert mean.shape == (*x.shape[:2], 1)
    got = ops.layer_norm_grad(g, x, mean, rstd, weight, backend=backend)
    for value, exact in zip(got, by_autograd(g, x, weight), strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-11, atol=1e-11)


@EACH_TIER
def test_without_weight_and_with_statistics_of_two_axes(tier, monkeypatch):
    backend = force(tier, monkeypatch)
    g, x, mean, rstd, weight = problem()
    got = ops.layer_norm_grad(g, x, mean.squeeze(-1), rstd.squeeze(-1), backend=backend)
    for value, exact in zip(got, by_autograd(g, x, torch.ones_like(weight)), strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-11, atol=1e-11)


@EACH_TIER
@pytest.mark.parametrize("features", [19, 32])
def test_in_place_and_into_memory_of_any_strides(features, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    g, x, mean, rstd, weight = problem(9, features)
    expected = ops.layer_norm_grad(g, x, mean, rstd, weight, backend=backend)
    strided = torch.full((*g.shape[::-1],), torch.nan, dtype=g.dtype).permute(3, 2, 1, 0)
    for out, cotangents in ((strided, g), (same := g.clone(), same)):
        got = ops.layer_norm_grad(cotangents, x, mean, rstd, weight, out=out, backend=backend)
        assert got[0] is out
        assert all(torch.equal(a, b) for a, b in zip(got, expected))


@EACH_ISA
def test_sums_keep_float32_accuracy(isa, monkeypatch):
    """Sums of 6,000 positions and 3,000 features, and inputs whose mean is a hundred deviations away."""
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    for positions, features, mean in ((6000, 40, 0.0), (5, 3000, 0.0), (20, 100, 100.0)):
        inputs = problem(positions, features, torch.float32, mean=mean)
        inputs[0].add_(1)
        exact = ops.layer_norm_grad(*(t.double() for t in inputs), backend="reference")
        for value, truth in zip(ops.layer_norm_grad(*inputs, backend="cpu"), exact, strict=True):
            assert (value - truth).norm() <= 5e-7 * truth.norm()


G, X, S, D = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5), torch.zeros(2, 4, 1), torch.zeros(5)
GOOD = {"g": G, "x": X, "mean": S, "rstd": S, "weight": D}
BAD = [
    ({"g": G[0]}, r"g has shape \(3, 4, 5\); expected \[B, K, T, D\]"),
    ({"g": G.int()}, r"g has dtype torch.int32"),
    ({"x": X[:1]}, r"x has shape \(1, 4, 5\); expected \(2, 4, 5\)"),
    ({"mean": S[:, :3]}, r"mean has shape \(2, 3, 1\)"),
    ({"mean": S.mT}, r"mean has shape \(2, 1, 4\)"),
    ({"rstd": S.double()}, r"rstd is torch.float64"),
    ({"rstd": None}, r"rstd must be a torch.Tensor"),
    ({"weight": X}, r"weight has shape"),
    ({"out": G[:1]}, r"out has shape"),
    ({"out": G[:1].expand(2, 3, 4, 5)}, r"out is expanded"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input_is_refused_by_name(change, message):
    with pytest.raises(InputError, match=message):
        ops.layer_norm_grad(**{**GOOD, **change})
