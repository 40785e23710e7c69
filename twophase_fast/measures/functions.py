"""How far two models are apart as functions."""

from __future__ import annotations

import torch
from torch import nn

from twophase_fast._types import InputError
from twophase_fast.measures._evaluate import Data, batches, classes, evaluating, outputs_of


def disagreement_rate(
    first: nn.Module | torch.Tensor,
    second: nn.Module | torch.Tensor,
    data: Data | None = None,
    *,
    batch_size: int = 512,
) -> float:
    """Share of test points on which two classifiers disagree.

        (1/N) Σ_n [argmax_c f_c(x_n) ≠ argmax_c f'_c(x_n)].

    Args:
        first: A model, or its logits `[N, C]`.
        second: Another model, or its logits on the same points.
        data: Test points for models: a tensor, a tuple (x, y), or batches x or (x, y); targets are not used. A loader
            must give its batches to both models at once, so it is read only once.
        batch_size: Points per forward where `data` is one tensor or tuple.

    Returns:
        A number in [0, 1].

    Raises:
        InputError: Logits are not finite or not `[N, C]` with C ≥ 2; two kinds of arguments are mixed; or no points.
    """
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor) and data is None:
        differing, points = _differing(first, second)
    elif isinstance(first, nn.Module) and isinstance(second, nn.Module) and data is not None:
        with evaluating(first, second):
            counts = [
                _differing(outputs_of(first, x), outputs_of(second, x)) for x, _ in batches(data, batch_size, False)
            ]
        differing, points = (sum(column) for column in zip(*counts)) if counts else (0, 0)
    else:
        raise InputError("give two models and data, or two tensors of logits and no data")
    if points == 0:
        raise InputError("there are no test points; the disagreement rate is undefined")
    return differing / points


def _differing(first: torch.Tensor, second: torch.Tensor) -> tuple[int, int]:
    if first.shape != second.shape:
        raise InputError(f"logits of shapes {tuple(first.shape)} and {tuple(second.shape)}; the same points are needed")
    return int((classes(first) != classes(second)).sum()), len(first)
