"""Kernels and runs for the storage tests."""

from __future__ import annotations

from pathlib import Path

import torch

from twophase_fast._matrix import from_matrix
from twophase_fast.storage import Trajectory


def symmetric_kernel(seed: int, samples: int = 4, outputs: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Full kernel, symmetric bit for bit, as the engine returns it: a view of an [N, C, N, C] buffer."""
    rows = torch.randn(samples * outputs, 20, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    matrix = rows @ rows.T
    return from_matrix(torch.triu(matrix) + torch.triu(matrix, 1).T, outputs)


def write(run: Path, **options) -> Trajectory:
    """Two steps in parts; the trajectory stays open."""
    t = Trajectory.create(run, **options)
    for step in (0, 1):
        t.append(step, kernel=torch.full((3, 3), float(step + 1)), metrics={"loss": step})
    return t


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
