"""Triton kernels without a GPU: interpreted on CPU tensors, with poisoned memory, and no autotuning."""

import pytest
import torch


@pytest.fixture
def interpreted(monkeypatch):
    """Let Triton kernels take CPU tensors; memory that nobody wrote is NaN."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("TWOPHASE_AUTOTUNE", "0")
    torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
