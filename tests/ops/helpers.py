"""What tests of several ops share: seeded operands, backends and instruction sets."""

from __future__ import annotations

import pytest
import torch

from twophase_fast import _native

ISAS = _native.available_isas()
TIERS = [("reference", ""), *(("cpu", isa) for isa in ISAS)]
"""Backends that can run on CPU tensors, the C++ one once per instruction set."""

EACH_BACKEND = pytest.mark.parametrize("backend", ["reference", "cpu"] if ISAS else ["reference"])
EACH_ISA = pytest.mark.parametrize("isa", ISAS)
EACH_TIER = pytest.mark.parametrize("tier", TIERS, ids="-".join)


def force(tier: tuple[str, str], monkeypatch) -> str:
    """Force the tier's instruction set and return its backend."""
    backend, isa = tier
    if isa:
        monkeypatch.setenv("TWOPHASE_ISA", isa)
        assert _native.isa() == isa
    return backend


def masked(g: torch.Tensor, seed: int) -> torch.Tensor:
    """Let about half of the last axis vanish in all rows of a sample [N, C, ..., p], all of it in the first sample."""
    kept = randn(seed, len(g), *(1,) * (g.ndim - 2), g.shape[-1]) > 0
    kept[0] = False
    return g * kept


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Normal numbers of this shape, the same for every dtype but for their rounding."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def relative(value: torch.Tensor, exact: torch.Tensor) -> float:
    """Return ‖value − exact‖ / ‖exact‖ (Frobenius norm)."""
    return float((value - exact).norm() / exact.norm())
