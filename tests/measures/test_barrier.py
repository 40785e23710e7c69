"""The loss barrier, where it is known on paper, and what it must leave alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from twophase_fast._types import InputError
from twophase_fast.measures import loss_barrier


class Point(nn.Module):
    """A model whose output is its parameter, whatever the input."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([value], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.theta.expand(len(x))


DATA = (torch.zeros(4, 1, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))


def concave(outputs: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return -outputs * outputs


def convex(outputs: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return (outputs * outputs).mean()


def test_barrier_of_a_quadratic():
    """L = −θ²: the deviation from the chord is α(1−α)(θ−θ')², largest at 1/2."""
    a, b = Point(1.0), Point(-2.0)
    height, alphas, losses = loss_barrier(a, b, DATA, concave, alphas=[0.25, 0.5], return_curve=True)
    assert height == pytest.approx(9 / 4)
    assert alphas.tolist() == [0.0, 0.25, 0.5, 1.0]
    torch.testing.assert_close(losses, -(torch.tensor([-2.0, -1.25, -0.5, 1.0], dtype=torch.float64) ** 2))
    assert loss_barrier(a, b, DATA, concave, alphas=[0.25]) == pytest.approx(9 * 3 / 16)
    assert loss_barrier(a, b, DATA, concave, alphas=[0.5], baseline="mean") == pytest.approx(-0.25 + 2.5)


def test_barrier_of_a_convex_loss_is_zero_and_never_negative():
    assert loss_barrier(Point(1.0), Point(-2.0), DATA, convex) == 0.0
    assert loss_barrier(Point(1.0), Point(1.0), DATA, convex) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_barrier_of_a_model_with_itself_is_exactly_zero(dtype):
    a = classifier(1).to(dtype)
    data = (X.to(dtype), Y)
    for baseline in ("linear", "mean"):
        assert loss_barrier(a, copy.deepcopy(a), data, functional.cross_entropy, baseline=baseline) == 0.0


def test_default_points_include_both_ends():
    _, alphas, losses = loss_barrier(Point(1.0), Point(3.0), DATA, convex, return_curve=True)
    assert len(alphas) == 30
    assert (alphas[0], alphas[-1]) == (0.0, 1.0)
    assert (losses[0], losses[-1]) == (9.0, 1.0)  # α = 0 is the second model


def classifier(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        for tensor in [*model.parameters(), model[1].running_mean]:
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        model[1].running_var.copy_(1 + torch.rand(8, generator=generator))
    return model


X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(64) % 3


def by_hand(a: nn.Module, b: nn.Module, alpha: float) -> nn.Module:
    model = copy.deepcopy(a).eval()
    with torch.no_grad():
        for mine, first, second in zip(model.state_dict().values(), a.state_dict().values(), b.state_dict().values()):
            if mine.is_floating_point():
                mine.copy_((alpha * first.double() + (1 - alpha) * second.double()).float())
    return model


def test_curve_equals_interpolation_by_hand_buffers_included():
    a, b = classifier(1), classifier(2)
    _, alphas, losses = loss_barrier(a, b, (X, Y), functional.cross_entropy, alphas=5, batch_size=10, return_curve=True)
    for alpha, loss in zip(alphas.tolist(), losses.tolist()):
        with torch.no_grad():
            assert loss == pytest.approx(float(functional.cross_entropy(by_hand(a, b, alpha)(X), Y)), rel=1e-5)


def test_error_metric_counts_wrong_points():
    a, b = classifier(1), classifier(2)
    _, alphas, errors = loss_barrier(a, b, (X, Y), metric="error", alphas=3, return_curve=True)
    for alpha, error in zip(alphas.tolist(), errors.tolist()):
        assert error == float((by_hand(a, b, alpha)(X).argmax(1) != Y).double().mean())


def test_statistics_are_estimated_anew_at_every_point_on_request():
    a, b = classifier(1), classifier(2)
    stale = loss_barrier(a, b, (X, Y), functional.cross_entropy, alphas=3, return_curve=True)[2]
    a[1].running_mean.add_(50.0)  # wrong statistics must not matter any more
    fresh = loss_barrier(
        a, b, (X, Y), functional.cross_entropy, alphas=3, batch_norm_data=X, batch_size=64, return_curve=True
    )[2]
    model = by_hand(a, b, 0.5)
    with torch.no_grad():
        hidden = model[0](X)
        model[1].running_mean.copy_(hidden.mean(0))
        model[1].running_var.copy_(hidden.var(0))
        assert float(fresh[1]) == pytest.approx(float(functional.cross_entropy(model(X), Y)), rel=1e-5)
    assert not torch.allclose(stale, fresh)


def test_models_and_random_state_are_left_as_they_were():
    a, b = classifier(1), classifier(2)
    a[1].eval()
    before = [copy.deepcopy(model.state_dict()) for model in (a, b)]
    flags = [module.training for model in (a, b) for module in model.modules()]
    momentum, state, version = a[1].momentum, torch.get_rng_state(), a[0].weight._version
    loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
    loss_barrier(a, b, loader, functional.cross_entropy, alphas=3, batch_norm_data=loader)
    for model, values in zip((a, b), before):
        assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert [module.training for model in (a, b) for module in model.modules()] == flags
    assert a[1].momentum == momentum
    assert a[0].weight._version == version
    assert torch.equal(torch.get_rng_state(), state)


def test_models_are_restored_after_an_error():
    a, b = classifier(1), classifier(2)
    before = copy.deepcopy(a.state_dict())

    def explode(outputs, targets):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        loss_barrier(a, b, (X, Y), explode)
    assert all(torch.equal(value, before[name]) for name, value in a.state_dict().items())
    assert a.training


def test_state_dicts_stand_for_models():
    a, b = classifier(1), classifier(2)
    expected = loss_barrier(a, b, (X, Y), functional.cross_entropy, alphas=5)
    assert loss_barrier(a, b.state_dict(), (X, Y), functional.cross_entropy, alphas=5) == expected
    states = copy.deepcopy((a.state_dict(), b.state_dict()))
    assert loss_barrier(*states, (X, Y), functional.cross_entropy, alphas=5, model=classifier(3)) == expected
    assert loss_barrier(b, a, (X, Y), functional.cross_entropy, alphas=5) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((Point(0.0), Point(1.0), DATA), {}, "needs loss_fn"),
        ((Point(0.0), Point(1.0), DATA, convex), {"alphas": [1.5]}, "alphas"),
        ((Point(0.0), Point(1.0), DATA, convex), {"alphas": 1}, "alphas"),
        ((Point(0.0), Point(1.0), DATA, convex), {"baseline": "max"}, "baseline"),
        ((Point(0.0), nn.Linear(1, 1), DATA, convex), {}, "one architecture"),
        ((Point(0.0).state_dict(), Point(0.0).state_dict(), DATA, convex), {}, "model="),
        ((Point(0.0), Point(1.0), DATA[0], convex), {}, "pair"),
        ((Point(0.0), Point(1.0), iter([DATA]), convex), {}, "more than once"),
        ((Point(0.0), Point(1.0), [], convex), {}, "no test points"),
        ((Point(0.0), Point(1.0), DATA, convex), {"batch_norm_data": DATA}, "running statistics"),
        ((Point(0.0), Point(1.0), DATA, lambda o, t: o[:, None]), {}, "loss_fn must return"),
        ((Point(0.0), Point(1.0), DATA), {"metric": "error"}, "C >= 2"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(arguments, options, words):
    with pytest.raises(InputError, match=words):
        loss_barrier(*arguments, **options)
