"""Eigenvalues and ranks of kernels whose spectrum is known."""

from __future__ import annotations

import math

import pytest
import torch

from twophase_fast._matrix import from_matrix
from twophase_fast._types import InputError
from twophase_fast.measures import effective_rank, participation_ratio, spectrum, stable_rank


def with_eigenvalues(values: list[float], seed: int = 0) -> torch.Tensor:
    n = len(values)
    random = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    basis = torch.linalg.qr(random).Q
    matrix = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T
    return (matrix + matrix.T) / 2


VALUES = [8.0, 4.0, 2.0, 1.0, 0.5, 0.0]


def entropy_rank(values: list[float]) -> float:
    total = sum(values)
    return math.exp(-sum(v / total * math.log(v / total) for v in values if v > 0))


@pytest.mark.parametrize("form", ["trace", "full", "numpy", "float32"])
def test_spectrum_of_a_known_kernel(form):
    kernel = with_eigenvalues(VALUES)
    kernel = {
        "trace": kernel,
        "full": from_matrix(kernel, 2),
        "numpy": kernel.numpy(),
        "float32": kernel.float(),
    }[form]
    tolerance = 1e-5 if form == "float32" else 1e-12
    result = spectrum(kernel)
    assert result.eigenvalues.dtype == torch.float64
    torch.testing.assert_close(
        result.eigenvalues, torch.tensor(VALUES, dtype=torch.float64), atol=10 * tolerance, rtol=tolerance
    )
    total, square = sum(VALUES), sum(v * v for v in VALUES)
    assert result.trace == pytest.approx(total, rel=tolerance)
    assert result.effective_rank == pytest.approx(entropy_rank(VALUES), rel=10 * tolerance)
    assert result.participation_ratio == pytest.approx(total**2 / square, rel=10 * tolerance)
    assert result.stable_rank == pytest.approx(square / 64, rel=10 * tolerance)


def test_ranks_of_the_identity_and_of_one_direction():
    identity, single = torch.eye(7), torch.ones(7, 7)
    for rank in (effective_rank, participation_ratio, stable_rank):
        assert rank(identity) == pytest.approx(7.0)
        assert rank(single) == pytest.approx(1.0, abs=1e-9)


def test_ranks_take_eigenvalues_and_do_not_depend_on_scale_or_order():
    kernel, values = with_eigenvalues(VALUES), torch.tensor(VALUES)
    for rank in (effective_rank, participation_ratio, stable_rank):
        assert rank(values.flip(0)) == pytest.approx(rank(kernel), rel=1e-9)
        assert rank(1e-8 * kernel) == pytest.approx(rank(kernel), rel=1e-9)


def test_bad_arguments_are_refused_with_the_reason():
    for bad, words in [
        (torch.zeros(3, 3), "zero"),
        (torch.ones(3, 2), "square"),
        (torch.full((2, 2), math.inf), "infinite"),
        (torch.tensor([[0.0, 1.0], [1.0, 0.0]]), "positive semi-definite"),
        (torch.tensor([[1.0, 0.5], [0.1, 1.0]]), "symmetric"),
        (torch.eye(3).long(), "int64"),
        (torch.ones(2, 2, 3), "diagonal"),
    ]:
        with pytest.raises(InputError, match=words):
            spectrum(bad)
