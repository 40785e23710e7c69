"""Run a model over data in evaluation mode, and leave it and the random state as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn

from twophase_fast._types import InputError

Batch: TypeAlias = Any  # x, or (x, y)
Data: TypeAlias = torch.Tensor | tuple[torch.Tensor, torch.Tensor] | Iterable[Batch]
LossFunction: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; training flags and the random state come back afterwards."""
    flags = [(module, module.training) for model in models for module in model.modules()]
    devices = {p.device.index for model in models for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=sorted(devices)), torch.no_grad():
            for model in models:
                model.eval()
            yield
    finally:
        for module, training in flags:
            module.training = training


def batches(data: Data, batch_size: int, labelled: bool) -> Iterator[tuple[Any, Any]]:
    """Give (inputs, targets) pieces of data; targets are None where there are none.

    Raises:
        InputError: Not data that can be read more than once, or targets are missing or of another length.
    """
    if isinstance(data, torch.Tensor):
        pieces: Iterable[Batch] = data.split(batch_size)
    elif isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, torch.Tensor) for part in data):
        if len(data[0]) != len(data[1]):
            raise InputError(f"inputs and targets have {len(data[0])} and {len(data[1])} samples")
        pieces = zip(data[0].split(batch_size), data[1].split(batch_size))
    elif isinstance(data, Iterator) or not isinstance(data, Iterable) or isinstance(data, (str, Mapping)):
        raise InputError(
            f"data must be a tensor, a tuple (x, y) or a list or loader of batches that can be read more than once; "
            f"got {type(data).__name__}"
        )
    else:
        pieces = data
    for piece in pieces:
        pair = isinstance(piece, Sequence) and len(piece) == 2
        if labelled and not pair:
            raise InputError(f"every batch must be a pair (x, y), got {type(piece).__name__}")
        yield (piece[0], piece[1]) if pair else (piece, None)


def outputs_of(model: nn.Module, inputs: Any) -> torch.Tensor:
    """Call a model on a tensor, a tuple (positional) or a dict (keyword arguments); takes `.logits` if there.

    Raises:
        InputError: The output is no tensor and has no `.logits`.
    """
    if isinstance(inputs, Mapping):
        output = model(**inputs)
    else:
        output = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    output = output if isinstance(output, torch.Tensor) else getattr(output, "logits", None)
    if not isinstance(output, torch.Tensor):
        raise InputError("the model returns neither a tensor nor an object with .logits; wrap it in one that does")
    return output


def classes(logits: torch.Tensor) -> torch.Tensor:
    """Index of the largest of the C logits of each sample, `[N]`.

    Raises:
        InputError: Not `[N, C]` with C ≥ 2, or not finite.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise InputError(f"an argmax needs logits of shape [N, C] with C >= 2, got {tuple(logits.shape)}")
    if not bool(torch.isfinite(logits).all()):
        raise InputError("the logits have NaN or infinite entries, so their argmax means nothing")
    return logits.argmax(1)
