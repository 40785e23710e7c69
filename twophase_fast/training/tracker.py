"""`Tracker`: record the kernel of somebody else's training loop, without touching it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn

from twophase_fast._types import InputError, Inputs, Output, ParameterFilter, Precision
from twophase_fast.ntk import entk
from twophase_fast.storage import Trajectory
from twophase_fast.training._modes import eval_mode

STORED_PARAMETERS = 1_000_000
"""Models up to this many parameters have them stored beside every kernel unless told otherwise."""


class Tracker:
    """Computes and stores the eNTK of a model every so many steps of a training loop.

        with Tracker(model, probe, out="run.h5", every=100) as tracker:
            for i, batch in enumerate(loader):
                tracker.step(i, loss=train_step(batch))

    Tracking never changes training: the weights with and without it are bit-identical. The kernel is computed in eval
    mode; training flags, gradients, buffers and random generators are as before afterwards.

    Args:
        model: The model being trained.
        probe: Probe set: a tensor, tuple or dict of tensors with a leading sample axis, on the model's device.
        out: The trajectory to write; while it is written it is a folder `<out>.parts`.
        every: Record at the steps that are multiples of it.
        output: `"full"`, `"trace"`, `"diagonal"` or `"sum"`, as in `entk`.
        output_fn: As in `entk`.
        targets: As in `entk`.
        params: As in `entk`.
        precision: As in `entk`.
        memory_budget: As in `entk`.
        parameters: Store the model's parameters beside each kernel; None for models of at most 1,000,000 parameters.
        config: Plain values stored in the file.
        keep: Which kernels stay, as in `Trajectory.create`.
        overwrite: Replace an existing file.

    Raises:
        InputError: `every` is not a positive integer.
        StorageError: `out` exists and `overwrite` is False.

    What `entk` refuses (the model, the probe set, a mistyped option) is told by the first `step` that records.
    """

    def __init__(
        self,
        model: nn.Module,
        probe: Inputs,
        *,
        out: str | Path,
        every: int = 1,
        output: Output = "full",
        output_fn: Callable[..., torch.Tensor] | None = None,
        targets: Any = None,
        params: ParameterFilter = None,
        precision: Precision = "highest",
        memory_budget: int | str | None = None,
        parameters: bool | None = None,
        config: Mapping[str, Any] | None = None,
        keep: Literal["all", "references", "metrics"] = "all",
        overwrite: bool = False,
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise InputError(f"every={every!r}; expected a positive number of steps")
        self.model, self.probe, self.every = model, probe, every
        self._arguments = {
            "output": output,
            "output_fn": output_fn,
            "targets": targets,
            "params": params,
            "precision": precision,
        }
        if memory_budget is not None:
            self._arguments["memory_budget"] = memory_budget
        if parameters is None:
            parameters = sum(p.numel() for p in model.parameters()) <= STORED_PARAMETERS
        self._parameters = parameters
        self.trajectory = Trajectory.create(out, probe=probe, config=dict(config or {}), keep=keep, overwrite=overwrite)

    def step(self, i: int, **metrics: float) -> bool:
        """Record step i if it is a multiple of `every`.

        Args:
            i: Number of updates the weights have seen.
            metrics: Scalars to store with it, such as `loss=0.3`.

        Returns:
            Whether the step was recorded.

        Raises:
            InputError: The step was recorded before, or a metric is no number.
            UnsupportedModelError: No exact per-sample kernel exists.
            StorageError: It cannot be written.
        """
        if i % self.every:
            return False
        numbers = {name: _number(name, value) for name, value in metrics.items()}
        with eval_mode(self.model):
            kernel = entk(self.model, self.probe, **self._arguments)
        self.trajectory.append(
            i,
            kernel=kernel,
            metrics=numbers or None,
            parameters=self.model if self._parameters else None,
        )
        return True

    def close(self) -> None:
        """Pack everything recorded into `out`; a second call does nothing."""
        self.trajectory.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"metric {name!r} is {value!r}; expected a number or a Tensor of one element") from error
