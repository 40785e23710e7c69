"""`linear_input_grad_`: against autograd, weights as torch keeps them, what it writes, accuracy, refusals."""

import pytest
import torch
import torch.nn.functional as F

from tests.ops.helpers import EACH_ISA, EACH_TIER, force, masked, randn
from twophase_fast import ops
from twophase_fast._types import InputError


def by_autograd(x, weight, g, function):
    """One backward pass per cotangent."""
    z = F.linear(function(x), weight)
    rows = [torch.autograd.grad(z, x, g[:, k], retain_graph=True)[0] for k in range(g.shape[1])]
    return torch.stack(rows, 1)


@EACH_TIER
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (10, 70), (40, 33), (210, 300)])
@pytest.mark.parametrize("positions", [1, 7])
def test_equals_autograd_also_behind_an_elementwise_function(positions, outputs, inputs, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    x, weight = randn(0, 3, positions, inputs).requires_grad_(), randn(1, outputs, inputs)
    g = randn(2, 3, 4, positions, outputs)
    for function, scale in ((lambda t: t, None), (torch.tanh, 1 - x.detach().tanh() ** 2)):
        exact = by_autograd(x, weight, g, function)
        out = torch.full_like(exact, torch.nan)
        assert ops.linear_input_grad_(out, g, weight, scale=scale, backend=backend) is out
        torch.testing.assert_close(out, exact, rtol=1e-12, atol=1e-12)
        ops.linear_input_grad_(out, g, weight, scale=scale, add=True, backend=backend)
        torch.testing.assert_close(out, 2 * exact, rtol=1e-12, atol=1e-12)


@EACH_TIER
@pytest.mark.parametrize("classes", [6, 10, 13])
def test_leaves_out_what_vanishes_for_all_outputs_of_a_sample(classes, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    g, weight = masked(randn(1, 37, classes, 1, 150), 2), randn(3, 301, 150)[:, :].t()
    scale, before = randn(4, 37, 1, 301), randn(5, 37, classes, 1, 301)
    exact = before + g @ weight * scale.unsqueeze(1)
    out = ops.linear_input_grad_(before.clone(), g, weight, scale=scale, add=True, backend=backend)
    torch.testing.assert_close(out, exact, rtol=1e-12, atol=1e-12)
    weight = weight.contiguous()
    weight[7, 11] = torch.inf  # zero times infinity is not zero
    broken = ops.linear_input_grad_(torch.empty_like(out), g, weight, backend=backend)
    assert torch.equal(broken.isnan(), (g @ weight).isnan())
    assert broken[..., 11].isfinite().logical_not().all()


@EACH_TIER
def test_takes_the_weight_as_torch_saves_it(tier, monkeypatch):
    backend = force(tier, monkeypatch)
    layer = torch.nn.Linear(50, 30)
    x = randn(3, 5, 50, dtype=torch.float32).requires_grad_()
    weight = layer(x).grad_fn._saved_mat2.t().detach()
    assert torch.equal(weight, layer.weight)
    g = randn(4, 5, 2, 1, 30, dtype=torch.float32)
    results = []
    for matrix in (weight, weight.t().contiguous().t(), weight.repeat(1, 2)[:, ::2].copy_(weight)):
        results.append(ops.linear_input_grad_(g.new_empty(5, 2, 1, 50), g, matrix, backend=backend))
    same = torch.equal if backend == "cpu" else torch.allclose  # torch's product has its own order for each layout
    assert all(same(result, results[0]) for result in results)
    torch.testing.assert_close(results[0], g @ layer.weight.detach(), rtol=1e-5, atol=1e-6)


@EACH_TIER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_writes_the_results_and_nothing_beside_them(dtype, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    room = torch.full((1000,), torch.nan, dtype=dtype)
    out = room[100 : 100 + 2 * 3 * 5 * 19].view(2, 3, 5, 19)
    g, weight, scale = (
        randn(5, 2, 3, 5, 13, dtype=dtype),
        randn(6, 13, 19, dtype=dtype),
        randn(7, 2, 5, 19, dtype=dtype),
    )
    ops.linear_input_grad_(out, g, weight, scale=scale, backend=backend)
    torch.testing.assert_close(out, (g @ weight) * scale.unsqueeze(1))
    assert room[:100].isnan().all()
    assert room[100 + out.numel() :].isnan().all()


@EACH_ISA
@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(130, 1024, 96), (1000, 30, 40), (3, 2000, 700)])
def test_at_most_twice_as_wrong_as_torch(rows, outputs, inputs, isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    g, weight = randn(8, 1, rows, 1, outputs, dtype=torch.float32), randn(9, outputs, inputs, dtype=torch.float32)
    exact = g.double() @ weight.double()
    got = ops.linear_input_grad_(g.new_empty(exact.shape), g, weight, backend="cpu")
    ours, theirs = ((value.double() - exact).norm() for value in (got, g @ weight))
    assert 0 < ours <= 2 * theirs


G, W, OUT = torch.zeros(2, 3, 4, 5), torch.zeros(5, 6), torch.zeros(2, 3, 4, 6)
GOOD = {"out": OUT, "g": G, "weight": W}
BAD = [
    ({"g": G[0]}, r"g has shape \(3, 4, 5\); expected \[B, K, T, O\]"),
    ({"g": G.int()}, r"g has dtype torch.int32"),
    ({"weight": W[0]}, r"weight has shape \(6,\)"),
    ({"weight": W[:4]}, r"g has 5 outputs but weight has 4"),
    ({"weight": W.double()}, r"weight is torch.float64"),
    ({"scale": OUT}, r"scale has shape"),
    ({"scale": OUT[:, 0].double()}, r"scale is torch.float64"),
    ({"scale": 2.0}, r"scale must be a torch.Tensor"),
    ({"out": OUT[:1]}, r"out has shape"),
    ({"out": OUT[:, :1].expand(2, 3, 4, 6)}, r"out is expanded"),
    ({"out": OUT.clone().requires_grad_()}, r"out requires grad"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input_is_refused_by_name(change, message):
    with pytest.raises(InputError, match=message):
        ops.linear_input_grad_(**{**GOOD, **change})
