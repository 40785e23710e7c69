"""What tests of the engine share: seeded inputs, a small network, and the error of a kernel."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from twophase_fast.ntk.plan import Group


def x(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Normal numbers of this shape, the same for every dtype but for their rounding."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def mlp(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """A network with 5 inputs and 3 outputs, the same in every test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    return model.to(dtype)


def error(kernel: torch.Tensor, truth: torch.Tensor) -> float:
    """Relative Frobenius error."""
    return float((kernel - truth).norm() / truth.norm())


def in_groups(make_plan, count: int):
    """Let the plans that `make_plan` makes have as many groups of parameters."""

    def made(*given, **options):
        plan = make_plan(*given, **options)
        names = [name for group in plan.groups for name in group.names]
        return replace(plan, groups=tuple(Group(tuple(names[k::count])) for k in range(count)))

    return made
