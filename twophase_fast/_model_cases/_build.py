"""The table of model cases, how a row enters it, and what rows are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Case = tuple[nn.Module, Any, dict[str, Any]]
MODEL_CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Any]) -> Callable[[], Case]:
    """Register a builder of (model, inputs) or (model, inputs, keyword arguments) under its own name."""

    def seeded() -> Case:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1234)
            model, x, *rest = build()
            _randomise(model)
        return model.double().eval(), x, rest[0] if rest else {}

    MODEL_CASES[build.__name__] = seeded
    return seeded


def _randomise(model: nn.Module) -> None:
    """Move constant initial values (ones, zeros) off their constants, so that no term vanishes by accident."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for name, b in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                b.add_(0.2 * torch.rand_like(b))


class Apply(nn.Module):
    """A module from named parts and a function of (parts, *inputs)."""

    def __init__(self, function: Callable[..., torch.Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        """Return function(self, *inputs)."""
        return self.function(self, *inputs, **named)


def inputs(*shape: int) -> torch.Tensor:
    """Return normal numbers of this shape, float64."""
    return torch.randn(*shape, dtype=torch.float64)


def parameter(*shape: int) -> nn.Parameter:
    """Return a parameter of this shape with normal entries."""
    return nn.Parameter(torch.randn(*shape))


def convolution(layer: nn.Module, *shape: int) -> tuple[nn.Module, torch.Tensor]:
    """Return a model of one layer on images, tanh and a mean over positions, and inputs of this shape."""
    axes = tuple(range(2, len(shape)))
    return Apply(lambda s, x: s.c(x).tanh().mean(axes), c=layer), inputs(*shape)
