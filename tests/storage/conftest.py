"""Paths and kernels for the storage tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .helpers import symmetric_kernel


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Path of a run that does not exist yet."""
    return tmp_path / "run.h5"


@pytest.fixture
def kernels() -> list[torch.Tensor]:
    """Three full kernels."""
    return [symmetric_kernel(seed) for seed in range(3)]
