"""Choosing the parameters a kernel is taken over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

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
        InputError: `params`, or one of several globs, matches none of them, or they are spread over several devices.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        count = sum(1 for _ in model.parameters())
        state = f"all {count} parameters are frozen; set requires_grad=True" if count else "it has no parameters"
        raise UnsupportedModelError(f"{type(model).__name__} has nothing to differentiate: {state}")
    chosen = _chosen(named, params)
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


def _chosen(named: Mapping[str, torch.Tensor], params: ParameterFilter) -> dict[str, torch.Tensor]:
    """Return the parameters that `params` names.

    Raises:
        InputError: It is of another kind, or it or one of its globs matches nothing: most likely a slip of the pen.
    """
    if params is None:
        return dict(named)
    if callable(params):
        names = [name for name in named if params(name)]
        unmatched: list[Any] = [] if names else [params]
    else:
        matches = {glob: {name for name in named if fnmatchcase(name, glob)} for glob in _globs(params)}
        names = [name for name in named if any(name in found for found in matches.values())]
        unmatched = [glob for glob, found in matches.items() if not found] if matches else [params]
    if unmatched:
        known = ", ".join([*list(named)[:8], *["..."][: len(named) > 8]])
        raise InputError(f"params={unmatched[0]!r} matches no parameter that requires grad; the model has {known}")
    return {name: named[name] for name in names}


def _globs(params: Any) -> list[str]:
    globs: list[Any] = [params] if isinstance(params, str) else list(params) if isinstance(params, Iterable) else [None]
    wrong = [glob for glob in globs if not isinstance(glob, str)]
    if wrong:
        given = type(params).__name__ + (f" with {type(wrong[0]).__name__}" if wrong[0] is not None else "")
        raise InputError(
            f"params is a {given}; expected None, a glob or several globs on the name such as 'encoder.*', or a "
            "predicate on the name"
        )
    return globs
