"""Kernel regression against linear least squares in feature space."""

from __future__ import annotations

import pytest
import torch

from twophase_fast._matrix import from_matrix
from twophase_fast._types import InputError
from twophase_fast.measures import kernel_regression

N, M, C = 5, 3, 2


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def primal(train: torch.Tensor, test: torch.Tensor, y: torch.Tensor, ridge: float) -> torch.Tensor:
    """Ridge regression in feature space: the same predictor, solved for the weights."""
    gram = train.T @ train + ridge * torch.eye(train.shape[1], dtype=torch.float64)
    return test @ torch.linalg.solve(gram, train.T @ y)


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_predictions_equal_the_primal_solution(ridge):
    train, test, y = random(N, 9, seed=0), random(M, 9, seed=1), random(N, C, seed=2)
    predictions = kernel_regression(train @ train.T, test @ train.T, y, ridge=ridge)
    torch.testing.assert_close(predictions, primal(train, test, y, ridge), rtol=1e-9, atol=1e-11)
    vector = kernel_regression(train @ train.T, test @ train.T, y[:, 0], ridge=ridge)
    torch.testing.assert_close(vector, predictions[:, 0])


def test_full_kernel_couples_the_outputs():
    train, test, y = random(N * C, 20, seed=3), random(M * C, 20, seed=4), random(N, C, seed=5)
    predictions = kernel_regression(
        from_matrix(train @ train.T, C), from_matrix(test @ train.T, C), y.float().numpy(), ridge=0.1
    )
    expected = primal(train, test, y.reshape(-1, 1), 0.1).reshape(M, C)
    assert predictions.shape == (M, C)
    torch.testing.assert_close(predictions, expected, rtol=1e-5, atol=1e-6)


def test_without_ridge_the_training_targets_are_reproduced():
    train, y = random(N, 9, seed=6), random(N, C, seed=7)
    gram = train @ train.T
    torch.testing.assert_close(kernel_regression(gram, gram, y), y, rtol=1e-8, atol=1e-8)


def test_bad_arguments_are_refused_with_the_reason():
    gram, y = random(N, 9, seed=8) @ random(N, 9, seed=8).T, random(N, C, seed=9)
    low_rank = torch.ones(N, N)
    for arguments, words in [
        ((low_rank, low_rank, y), "raise the ridge"),
        ((gram, gram, y, -1.0), "ridge"),
        ((gram, gram[:, :3], y), "kernel_test_train"),
        ((gram, gram, y[:3]), "targets"),
    ]:
        with pytest.raises(InputError, match=words):
            kernel_regression(*arguments)
