"""Read the parameters of two models, whatever they are given as, and pair them by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import nn

from twophase_fast._types import InputError

Parameters: TypeAlias = nn.Module | Mapping[str, torch.Tensor] | Sequence[torch.Tensor] | torch.Tensor

_NORM_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def paired(first: Parameters, second: Parameters) -> tuple[list[str], list[torch.Tensor], list[torch.Tensor]]:
    """Return names and the two lists of tensors, in the order of `first`.

    Raises:
        InputError: Names, shapes or numbers of tensors differ; nothing to compare; or a value is no tensor.
    """
    a, b = named(first, "the first argument"), named(second, "the second argument")
    if isinstance(first, nn.Module) != isinstance(second, nn.Module):
        a, b = _as_the_module(first, a, b), _as_the_module(second, b, a)
    missing, unexpected = sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())
    if missing or unexpected:
        raise InputError(
            f"the two models have different parameters: only the first has {_some(missing)}, only the second has "
            f"{_some(unexpected)}; compare models of one architecture"
        )
    for name in a:
        if a[name].shape != b[name].shape:
            raise InputError(
                f"{name!r} has shape {tuple(a[name].shape)} in the first, {tuple(b[name].shape)} in the second"
            )
    return list(a), list(a.values()), [b[name] for name in a]


def named(source: Parameters, what: str) -> dict[str, torch.Tensor]:
    """Return the floating-point parameters by name; each tied parameter once, under its first name.

    Raises:
        InputError: Nothing there, or something that is neither a module, a mapping, a sequence nor a tensor.
    """
    tensors: dict[str, torch.Tensor]
    if isinstance(source, nn.Module):
        tensors = {name: parameter for name, parameter in source.named_parameters()}  # noqa: C416 (the wider type)
    elif isinstance(source, torch.Tensor):
        tensors = {"(tensor)": source}
    elif isinstance(source, Mapping):
        tensors = {name: value for name, value in source.items() if name.rsplit(".", 1)[-1] not in _NORM_BUFFERS}
    elif isinstance(source, Sequence) and not isinstance(source, str):
        tensors = {f"[{i}]": value for i, value in enumerate(source)}
    else:
        raise InputError(
            f"{what} is a {type(source).__name__}; expected a module, state dict, list of tensors or tensor"
        )
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{what}: {name!r} is a {type(value).__name__}, expected a tensor")
    floating = {name: value.detach() for name, value in tensors.items() if value.is_floating_point()}
    if not floating:
        raise InputError(f"{what} holds no floating-point parameters")
    return _without_ties(floating) if isinstance(source, Mapping) else floating


def _without_ties(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    seen: set[tuple] = set()
    kept = {}
    for name, tensor in tensors.items():
        key = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() == 0 or key not in seen:
            kept[name] = tensor
        seen.add(key)
    return kept


def _as_the_module(source: Parameters, own: dict, other: dict) -> dict:
    """Reduce a state dict to the names that the module on the other side calls parameters."""
    return own if isinstance(source, nn.Module) else {n: t for n, t in own.items() if n in other}


def _some(names: list[str]) -> str:
    return (", ".join(names[:5]) + (", …" if len(names) > 5 else "")) or "none"
