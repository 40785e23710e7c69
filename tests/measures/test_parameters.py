"""Parameter measures, against exact arithmetic and by their invariances."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch import nn

from twophase_fast._types import InputError
from twophase_fast.measures import lyapunov_exponent, parameter_dissimilarity, parameter_distance

RELATIVE = [10.0**-k for k in range(11)]  # 1 down to 1e-10


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, generator=generator(seed), dtype=torch.float64)


def exact_dissimilarity(a: torch.Tensor, b: torch.Tensor) -> mpmath.mpf:
    """1 − cos of the numbers as stored, with 2,000 bits."""
    with mpmath.workprec(2000):
        x, y = ([mpmath.mpf(v) for v in t.double().tolist()] for t in (a, b))
        dot = mpmath.fsum(p * q for p, q in zip(x, y))
        return 1 - dot / mpmath.sqrt(mpmath.fsum(p * p for p in x) * mpmath.fsum(q * q for q in y))


def assert_matches_exact(a: torch.Tensor, b: torch.Tensor, pieces: int = 3) -> None:
    truth = exact_dissimilarity(a, b)
    assert truth > 0
    for first, second in [(a, b), (list(a.chunk(pieces)), list(b.chunk(pieces))), (b, a)]:
        error = abs((mpmath.mpf(parameter_dissimilarity(first, second)) - truth) / truth)
        assert error < 1e-9, f"relative error {float(error):.2e} at C = {float(truth):.2e}"


@pytest.mark.parametrize("relative", RELATIVE)
def test_dissimilarity_is_exact_for_isotropic_differences(relative):
    a = noise(600, 1)
    b = a + relative * noise(600, 2)
    assert_matches_exact(a, b)


@pytest.mark.parametrize("relative", RELATIVE)
@pytest.mark.parametrize("factor", [1.001, 0.5, 1 + 1e-10])
def test_dissimilarity_is_exact_for_differences_nearly_parallel_to_the_parameters(relative, factor):
    a = noise(600, 3)
    b = a * factor + relative * noise(600, 4)
    assert_matches_exact(a, b)


@pytest.mark.parametrize("relative", [1.0, 1e-2, 1e-4, 1e-6, 1e-7])
@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_dissimilarity_is_exact_for_float32_as_stored(relative, factor):
    a = noise(600, 5).float()
    b = (a.double() * factor + relative * noise(600, 6)).float()
    assert_matches_exact(a, b)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_dissimilarity_does_not_depend_on_the_scale_of_either_side(scale):
    a, b = noise(300, 7), noise(300, 8)
    assert parameter_dissimilarity(a * scale, b) == pytest.approx(parameter_dissimilarity(a, b), rel=1e-12)


def test_dissimilarity_reaches_its_ends():
    a = noise(100, 9)
    assert parameter_dissimilarity(a, a.clone()) == 0.0
    assert parameter_dissimilarity(a, -a) == pytest.approx(2.0, abs=1e-15)
    assert parameter_dissimilarity(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == pytest.approx(1.0)


def test_dissimilarity_is_unchanged_by_a_common_permutation():
    a, order = noise(500, 10), torch.randperm(500, generator=generator(11))
    b = a + 1e-6 * noise(500, 12)
    assert parameter_dissimilarity(a[order], b[order]) == pytest.approx(parameter_dissimilarity(a, b), rel=1e-9)


class Net(nn.Module):
    """Tied weights, BatchNorm buffers, an integer buffer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.norm = nn.BatchNorm1d(5)
        self.tied = nn.Linear(5, 5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator(seed)))
        self.tied.weight = self.first.weight
        self.norm.running_mean.fill_(100.0 * seed)


def test_modules_state_dicts_lists_and_flat_tensors_agree():
    a, b = Net(1), Net(2)
    flat = [torch.cat([p.detach().flatten() for p in net.parameters()]) for net in (a, b)]
    expected = parameter_dissimilarity(*flat)
    forms = [
        (a, b),
        (a.state_dict(), b.state_dict()),
        (a, b.state_dict()),
        (a.state_dict(), b),
        (a, {name: value.clone() for name, value in b.state_dict().items()}),
        (list(a.parameters()), list(b.parameters())),
    ]
    for first, second in forms:
        assert parameter_dissimilarity(first, second) == pytest.approx(expected, rel=1e-12)
        assert parameter_distance(first, second).total == pytest.approx(parameter_distance(*flat).total, rel=1e-12)


def test_parameter_distance_total_relative_and_per_parameter():
    first = {"w": torch.tensor([[3.0, 4.0]]), "b": torch.zeros(2)}
    second = {"b": torch.tensor([0.0, 2.0]), "w": torch.tensor([[3.0, 5.0]])}
    result = parameter_distance(first, second)
    assert result.total == float(result) == pytest.approx(math.sqrt(5))
    assert result.relative == pytest.approx(math.sqrt(5) / 5)
    assert result.per_parameter == {"w": 1.0, "b": 2.0}
    assert result.relative_per_parameter["w"] == pytest.approx(0.2)
    assert math.isnan(result.relative_per_parameter["b"])
    assert (result.changed, result.entries, result.largest) == (2, 4, 2.0)


def test_parameter_distance_does_not_cancel():
    a = noise(1000, 13)
    d = torch.ldexp(torch.ones(1000, dtype=torch.float64), torch.tensor(-40))
    assert parameter_distance(a.round(decimals=3).float().double(), a.round(decimals=3).float().double() + d).total == (
        pytest.approx(math.sqrt(1000) * 2.0**-40, rel=1e-12)
    )


def test_lyapunov_exponent():
    assert lyapunov_exponent(math.e**3 * 1e-7, 1e-7, 10) == pytest.approx(0.3)
    assert lyapunov_exponent(0.0, 1e-7, 10) == -math.inf
    for arguments in [(-1.0, 1.0, 1), (math.nan, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.0, 0)]:
        with pytest.raises(InputError):
            lyapunov_exponent(*arguments)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (nn.Linear(2, 3), nn.Linear(2, 4), "shape"),
        (nn.Linear(2, 3), nn.Linear(2, 3, bias=False), "only the first has bias"),
        ([torch.ones(2)], [torch.ones(2), torch.ones(2)], "only the second has"),
        (torch.ones(2), torch.ones(2).double(), "float64"),
        (torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64), "no floating-point"),
        (nn.ReLU(), nn.ReLU(), "no floating-point"),
        ("weights", "weights", "str"),
        ({"w": 1.0}, {"w": 1.0}, "expected a tensor"),
        (torch.zeros(3), torch.ones(3), "zero"),
        (torch.tensor([math.nan]), torch.ones(1), "NaN"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(first, second, words):
    with pytest.raises(InputError, match=words):
        parameter_dissimilarity(first, second)
