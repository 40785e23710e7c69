"""Kernels for the storage tests."""

from __future__ import annotations

import torch

from twophase_fast._matrix import from_matrix


def symmetric_kernel(seed: int, samples: int = 4, outputs: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Full kernel, symmetric bit for bit, as the engine returns it: a view of an [N, C, N, C] buffer."""
    rows = torch.randn(samples * outputs, 20, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    matrix = rows @ rows.T
    return from_matrix(torch.triu(matrix) + torch.triu(matrix, 1).T, outputs)
