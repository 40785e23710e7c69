"""Put a model at any point of the straight line between two others, and back where it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from twophase_fast._types import InputError
from twophase_fast.measures._evaluate import outputs_of

Model = nn.Module | Mapping[str, torch.Tensor]


class Line:
    """The line αθ + (1−α)θ', walked in one module.

    Attributes:
        model: The module that walks; restored at the end.
    """

    def __init__(self, first: Model, second: Model, model: nn.Module | None) -> None:
        walker = model or next((m for m in (first, second) if isinstance(m, nn.Module)), None)
        if walker is None:
            raise InputError("two state dicts need an architecture: pass model=")
        self.model = walker
        self._live = _tensors(self.model)
        self._first, self._second = (_values(source, self.model) for source in (first, second))

    @contextmanager
    def walking(self) -> Iterator[None]:
        """Within, `move_to` may be called; afterwards the module holds its own values again, bit for bit."""
        own = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        try:
            yield
        finally:
            _fill(self._live, own)

    def move_to(self, alpha: float) -> None:
        """Put the module at αθ + (1−α)θ'; at 0 and 1 it is θ' and θ bit for bit."""
        _fill(self._live, {name: _between(self._first[name], self._second[name], alpha) for name in self._live})


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _fill(live: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    # Through .data, so that the version counters, and graphs the caller still holds, stay valid.
    for name, tensor in live.items():
        tensor.data.copy_(values[name])


def _values(source: Model, model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of a model's parameters and buffers under the names they have in `model`.

    Raises:
        InputError: Names, shapes or dtypes differ.
    """
    given = _tensors(source) if isinstance(source, nn.Module) else dict(source)
    wanted = _tensors(model)
    optional = wanted.keys() - model.state_dict().keys()  # buffers that are not persistent
    missing = sorted(wanted.keys() - given.keys() - optional)
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    known |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    unexpected = sorted(given.keys() - known)
    if missing or unexpected:
        raise InputError(f"the models differ: missing {missing[:5]}, unexpected {unexpected[:5]}; use one architecture")
    values = {name: given.get(name, wanted[name]).detach().clone() for name in wanted}
    for name, value in values.items():
        if value.shape != wanted[name].shape or value.dtype != wanted[name].dtype:
            raise InputError(
                f"{name!r} is {value.dtype} {tuple(value.shape)} in one model and {wanted[name].dtype} "
                f"{tuple(wanted[name].shape)} in the other; use one architecture"
            )
    return values


def _between(first: torch.Tensor, second: torch.Tensor, alpha: float) -> torch.Tensor:
    if not first.is_floating_point():
        return first if alpha >= 0.5 else second
    if alpha in (0.0, 1.0):
        return first if alpha else second
    # In difference form, so that the line between equal models is that model bit for bit.
    return (second.double() + alpha * (first.double() - second.double())).to(first.dtype)


def recalibrate(model: nn.Module, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Re-estimate BatchNorm statistics as plain averages over batches.

    Raises:
        InputError: The model has no running statistics to re-estimate, or there are no batches.
    """
    norms = [m for m in model.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
    if not norms:
        raise InputError("batch_norm_data was given, but no layer of the model keeps running statistics")
    momenta = [norm.momentum for norm in norms]
    count = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for inputs, _ in pairs:
            outputs_of(model, inputs)
            count += 1
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
            norm.eval()
    if count == 0:
        raise InputError("batch_norm_data has no batches")
