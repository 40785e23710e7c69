"""The loss barrier on the straight line between two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from twophase_fast._types import InputError
from twophase_fast.measures._evaluate import Data, LossFunction, batches, classes, evaluating, outputs_of
from twophase_fast.measures._line import Line, recalibrate

Model: TypeAlias = nn.Module | Mapping[str, torch.Tensor]


def loss_barrier(
    first: Model,
    second: Model,
    data: Data,
    loss_fn: LossFunction | None = None,
    *,
    alphas: int | Sequence[float] | torch.Tensor = 30,
    baseline: Literal["linear", "mean"] = "linear",
    metric: Literal["loss", "error"] = "loss",
    batch_norm_data: Data | None = None,
    model: nn.Module | None = None,
    batch_size: int = 512,
    return_curve: bool = False,
) -> Any:
    """Height of the loss barrier between two models.

        B = max_α L(αθ + (1−α)θ') − [αL(θ) + (1−α)L(θ')]

    with L the mean over the data. The endpoints belong to the α and are evaluated by the same procedure (the same
    interpolation, the same BatchNorm statistics), so B ≥ 0 for the linear baseline. The interpolation is done in
    float64 and rounded to each parameter's dtype; floating-point buffers are interpolated as well, others are taken
    from the nearer model. Both models are left as they were: values, training flags and random state.

    Args:
        first: θ: a module, or a state dict.
        second: θ', of the same architecture.
        data: A tuple (x, y), or batches (x, y) that can be read more than once. x: tensor, tuple or dict.
        loss_fn: (outputs, targets) -> mean loss of the batch, or one loss per sample. Not needed for the error.
        alphas: A number of points, evenly spaced over [0, 1], or the points; 0 and 1 are added where missing.
        baseline: "linear" as above; "mean" subtracts (L(θ) + L(θ'))/2 instead.
        metric: "loss", or "error": the share of samples whose argmax is not the target.
        batch_norm_data: Data on which BatchNorm statistics are re-estimated (plain averages over its batches) at every
            α, endpoints included. Default: the interpolated statistics.
        model: Architecture to evaluate in, where both θ and θ' are state dicts.
        batch_size: Samples per forward where the data is one tuple.
        return_curve: Also return the α and L along the line.

    Returns:
        B, a float; with `return_curve` a tuple (B, α `[A]`, L `[A]`), float64 tensors.

    Raises:
        InputError: Architectures differ, α outside [0, 1], unknown option, no data, or a loss that is no number.
    """
    points = _points(alphas)
    if baseline not in ("linear", "mean") or metric not in ("loss", "error"):
        raise InputError(f"baseline is 'linear' or 'mean' and metric 'loss' or 'error'; got {baseline!r}, {metric!r}")
    if metric == "loss" and loss_fn is None:
        raise InputError("metric='loss' needs loss_fn, for example torch.nn.functional.cross_entropy")
    line = Line(first, second, model)
    values = []
    with evaluating(line.model), line.walking():
        for alpha in points.tolist():
            line.move_to(alpha)
            if batch_norm_data is not None:
                recalibrate(line.model, batches(batch_norm_data, batch_size, labelled=False))
            values.append(_mean(line.model, batches(data, batch_size, labelled=True), loss_fn, metric))
    curve = torch.tensor(values, dtype=torch.float64)
    height = _height(points, curve, baseline)
    return (height, points, curve) if return_curve else height


def _points(alphas: int | Sequence[float] | torch.Tensor) -> torch.Tensor:
    if isinstance(alphas, int):
        if alphas < 2:
            raise InputError(f"alphas must be at least 2 points, got {alphas}")
        return torch.linspace(0, 1, alphas, dtype=torch.float64)
    given = torch.as_tensor(alphas, dtype=torch.float64).flatten()
    if bool(((given < 0) | (given > 1) | given.isnan()).any()):
        raise InputError(f"alphas must lie in [0, 1], got {given.tolist()}")
    return torch.cat([given, torch.tensor([0.0, 1.0], dtype=torch.float64)]).unique()


def _height(points: torch.Tensor, curve: torch.Tensor, baseline: str) -> float:
    at_second, at_first = curve[0], curve[-1]  # α = 0 is θ', α = 1 is θ
    if baseline == "mean":
        return float((curve - (at_first + at_second) / 2).max())
    # In difference form, so that a flat line has a barrier of exactly 0.
    return float((curve - (at_second + points * (at_first - at_second))).max())


def _mean(model: nn.Module, pairs: Any, loss_fn: LossFunction | None, metric: str) -> float:
    total, samples = 0.0, 0
    for inputs, targets in pairs:
        outputs = outputs_of(model, inputs)
        if metric == "error":
            total += float((classes(outputs) != targets).sum())
        elif loss_fn is not None:
            total += _summed_loss(loss_fn(outputs, targets), len(outputs))
        samples += len(outputs)
    if samples == 0:
        raise InputError("there are no test points; the loss is undefined")
    return total / samples


def _summed_loss(loss: Any, samples: int) -> float:
    if not isinstance(loss, torch.Tensor) or loss.shape not in ((), (samples,)):
        raise InputError(f"loss_fn must return a scalar tensor or one loss per sample [{samples}], got {_shape(loss)}")
    return float(loss.double()) * samples if loss.ndim == 0 else float(loss.double().sum())


def _shape(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
