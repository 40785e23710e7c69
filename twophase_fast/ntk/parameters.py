"""Choosing the parameters a kernel is taken over."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import torch
from torch import nn

from twophase_fast._types import InputError, ParameterFilter, UnsupportedModelError


def select_parameters(model: nn.Module, params: ParameterFilter) -> dict[str, torch.Tensor]:
    """Return name -> parameter for those that require grad and match `params`.

    Args:
        model: The model.
        params: None (all), a glob or several globs on the name, or a predicate on the name.

    Raises:
        UnsupportedModelError: The model has no parameter that requires grad.
        InputError: `params` matches none of them, or they are spread over several devices.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        count = sum(1 for _ in model.parameters())
        state = f"all {count} parameters are frozen" if count else "it has no parameters"
        raise UnsupportedModelError(
            f"{type(model).__name__} has nothing to differentiate: {state}; set requires_grad=True"
        )
    matches = _predicate(params)
    chosen = {name: p for name, p in named.items() if matches(name)}
    if not chosen:
        known = ", ".join(list(named)[:8])
        raise InputError(f"params={params!r} matches no parameter that requires grad; the model has {known}, ...")
    devices = {str(p.device) for p in model.parameters()}
    if len(devices) > 1:
        raise InputError(
            f"the model's parameters are on several devices ({', '.join(sorted(devices))}); move it to one"
        )
    complex_names = [name for name, p in chosen.items() if p.is_complex()]
    if complex_names:
        raise UnsupportedModelError(
            f"{complex_names[0]} is complex; kernels of complex parameters are not defined here"
        )
    return chosen


def _predicate(params: ParameterFilter) -> Callable[[str], bool]:
    if params is None:
        return lambda name: True
    if callable(params):
        return params
    globs = [params] if isinstance(params, str) else list(params)
    return lambda name: any(fnmatchcase(name, glob) for glob in globs)
