"""Alignment and centred alignment with targets, against their definitions."""

from __future__ import annotations

import pytest
import torch

from twophase_fast._matrix import as_matrix, from_matrix
from twophase_fast._types import InputError
from twophase_fast.measures import centered_kernel_alignment, kernel_alignment

N, C = 6, 3


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernel(rows: int, seed: int = 0) -> torch.Tensor:
    features = random(rows, 9, seed=seed)
    return features @ features.T


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_alignment_is_the_cosine_with_the_kernel_of_the_targets():
    k, y = kernel(N), random(N, C, seed=1)
    assert kernel_alignment(k, y) == pytest.approx(cosine(k, y @ y.T), rel=1e-12)
    assert kernel_alignment(k.float().numpy(), y) == pytest.approx(cosine(k, y @ y.T), rel=1e-6)
    assert kernel_alignment(y @ y.T, y) == pytest.approx(1.0)
    assert kernel_alignment(k, y[:, 0]) == pytest.approx(kernel_alignment(k, y[:, :1]))


def test_alignment_of_a_full_kernel_uses_the_stacked_targets():
    k, y = from_matrix(kernel(N * C), C), random(N, C, seed=1)
    stacked = y.reshape(-1, 1)
    assert kernel_alignment(k, y) == pytest.approx(cosine(as_matrix(k), stacked @ stacked.T), rel=1e-12)


def test_centred_alignment_is_the_alignment_of_the_centred_kernels():
    k, y = kernel(N, seed=2) + 5.0, random(N, C, seed=3)
    h = torch.eye(N, dtype=torch.float64) - 1 / N
    expected = cosine(h @ k @ h, h @ y @ y.T @ h)
    assert centered_kernel_alignment(k, y) == pytest.approx(expected, rel=1e-10)
    assert centered_kernel_alignment(k, y + 7.0) == pytest.approx(expected, rel=1e-10)
    assert centered_kernel_alignment(k + 3.0, y) == pytest.approx(expected, rel=1e-10)


def test_centred_alignment_of_a_full_kernel_centres_the_samples_of_each_output():
    k, y = from_matrix(kernel(N * C, seed=4), C), random(N, C, seed=5)
    h = torch.kron(torch.eye(N, dtype=torch.float64) - 1 / N, torch.eye(C, dtype=torch.float64))
    column = h @ y.reshape(-1, 1)
    expected = cosine(h @ as_matrix(k) @ h, column @ column.T)
    assert centered_kernel_alignment(k, y) == pytest.approx(expected, rel=1e-10)


def test_alignments_do_not_change_when_samples_are_permuted_or_the_kernel_scaled():
    k, y = kernel(N, seed=6), random(N, C, seed=7)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(8))
    for measure in (kernel_alignment, centered_kernel_alignment):
        expected = measure(k, y)
        assert measure(k[order][:, order], y[order]) == pytest.approx(expected, rel=1e-12)
        assert measure(1e-6 * k, 10 * y) == pytest.approx(expected, rel=1e-12)


def test_bad_arguments_are_refused_with_the_reason():
    k, y = kernel(N), random(N, C)
    with pytest.raises(InputError, match="targets"):
        kernel_alignment(k, y[:-1])
    with pytest.raises(InputError, match="one-hot"):
        kernel_alignment(k, torch.arange(N))
    with pytest.raises(InputError, match="square"):
        kernel_alignment(k[:, :4], y)
    with pytest.raises(InputError, match="symmetric"):
        kernel_alignment(k + torch.triu(torch.ones(N, N)), y)
    with pytest.raises(InputError, match="centred"):
        centered_kernel_alignment(k, torch.ones(N, 1))
