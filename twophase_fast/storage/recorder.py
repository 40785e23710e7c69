"""What a writing trajectory keeps in memory: metrics not yet written, and kernels the keep policy still needs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from twophase_fast._types import InputError
from twophase_fast.storage import spec, triangle
from twophase_fast.storage._entries import checked_kernel, checked_metrics, checked_parameters, checked_step
from twophase_fast.storage.content import Content, Contents, KernelStack, NodePath
from twophase_fast.storage.keep import KernelKeeper
from twophase_fast.storage.reader import Node
from twophase_fast.storage.store import Store

_BATCH_SECONDS = 5.0
_BATCH_VALUES = 4096

Metrics = dict[str, dict[int, float]]


class Recorder:
    """Turns appended values into parts; one for a root and all its children."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: dict[NodePath, Metrics] = {}
        self._oldest = 0.0  # time.monotonic() of the first value of the batch
        self._recorded: dict[tuple[NodePath, str], set[int]] = {}
        self._keepers: dict[NodePath, KernelKeeper] = {}

    def append(self, place: NodePath, step: Any, kernel: Any, metrics: Any, parameters: Any) -> None:
        """Add one step to a node; all of it, or none."""
        step, values = checked_step(step), checked_metrics(metrics)
        self._refuse_repeated(place, step, values)
        content = Content(metrics=_columns({name: {step: value} for name, value in values.items()}))
        if parameters is not None:
            self._add_parameters(place, step, parameters, content)
        if kernel is not None:
            self._add_kernel(place, step, checked_kernel(kernel), content)
        elif parameters is None and not self._batch_is_due(len(values)):
            self._remember(place, step, values)
            return
        self.publish({place: content})
        if kernel is not None:
            self._keepers[place].remember(step, checked_kernel(kernel))
        for name in values:
            self._steps_of(place, name).add(step)

    def publish(self, contents: Contents) -> None:
        """Write contents, and the batched metrics with them."""
        for place, metrics in self._pending.items():
            content = contents.setdefault(place, Content())
            for name, column in _columns(metrics).items():
                content.metrics[name] = _joined(column, content.metrics.get(name))
        self._store.publish(contents)
        self._pending = {}

    def flush(self) -> None:
        """Write the batched metrics, if there are any."""
        if self._pending:
            self.publish({})

    def set_attrs(self, place: NodePath, attrs: Mapping[str, Any]) -> None:
        """Write attributes of a node, which thereby comes into being."""
        self.publish({place: Content(attrs=dict(attrs))})

    def _batch_is_due(self, new_values: int) -> bool:
        size = new_values + sum(len(values) for metrics in self._pending.values() for values in metrics.values())
        return bool(self._pending) and (size >= _BATCH_VALUES or time.monotonic() - self._oldest > _BATCH_SECONDS)

    def _remember(self, place: NodePath, step: int, values: Mapping[str, float]) -> None:
        if not values:
            return
        if not self._pending:
            self._oldest = time.monotonic()
        metrics = self._pending.setdefault(place, {})
        for name, value in values.items():
            metrics.setdefault(name, {})[step] = value
            self._steps_of(place, name).add(step)

    def _refuse_repeated(self, place: NodePath, step: int, values: Mapping[str, float]) -> None:
        for name in values:
            if step in self._steps_of(place, name):
                raise InputError(f"step {step} already has a value of metric {name!r}; nothing was added")

    def _steps_of(self, place: NodePath, name: str) -> set[int]:
        if (place, name) not in self._recorded:
            pieces = self._node(place).metrics.get(name, [])
            self._recorded[place, name] = {step for steps, _ in pieces for step in steps.tolist()}
        return self._recorded[place, name]

    def _add_parameters(self, place: NodePath, step: int, parameters: Any, content: Content) -> None:
        if step in self._node(place).parameters:
            raise InputError(f"step {step} already has parameters; nothing was added")
        tensors = checked_parameters(parameters)
        content.parameters = {step: lambda: tensors}

    def _add_kernel(self, place: NodePath, step: int, kernel: np.ndarray, content: Content) -> None:
        if place not in self._keepers:
            index = self._store.index
            self._keepers[place] = KernelKeeper(self._node(place), index.keep, index.references)
        keeper = self._keepers[place]
        keeper.check(step, kernel)
        if keeper.keeps(step):
            content.kernels = _stack(step, kernel)
        rows = keeper.distances(step, kernel)
        if rows is not None:
            content.tables[spec.DISTANCES] = rows

    def _node(self, place: NodePath) -> Node:
        return self._store.index.nodes.get(place) or Node()


def _stack(step: int, kernel: np.ndarray) -> KernelStack:
    packed = triangle.is_symmetric(kernel)
    return KernelStack(
        kernel.shape, kernel.dtype.name, packed, [step], lambda _: triangle.pack(kernel) if packed else kernel
    )


def _columns(metrics: Metrics) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps and values of each metric, in the order of steps."""
    ordered = {name: sorted(values.items()) for name, values in metrics.items()}
    return {
        name: (np.array([s for s, _ in items], dtype=np.int64), np.array([v for _, v in items], dtype=np.float64))
        for name, items in ordered.items()
    }


def _joined(first, second):
    if second is None:
        return first
    steps, values = (np.concatenate(pair) for pair in zip(first, second))
    order = np.argsort(steps)
    return steps[order], values[order]
