"""Deterministic initialisation: a model is a function of its arguments and a seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import nn

P = ParamSpec("P")


def seeded(factory: Callable[P, nn.Module]) -> Callable[P, nn.Module]:
    """Make a factory draw its initial weights from its keyword `seed`, and from nothing else.

    The weights are drawn on the CPU, so they do not depend on the device the model moves to later; the
    caller's random state is left as it was.
    """

    @wraps(factory)
    def build(*args: P.args, **kwargs: P.kwargs) -> nn.Module:
        seed = kwargs.pop("seed", 0)
        state = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(int(seed))  # type: ignore[call-overload]
            with torch.device("cpu"):
                return factory(*args, **kwargs)
        finally:
            torch.default_generator.set_state(state)

    return build
