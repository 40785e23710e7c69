"""What every C++ backend asks before it runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from twophase_fast import _native
from twophase_fast.ops._checks import FLOATS, tensors_in


def refuses(*arguments: object, dtypes: Sequence[torch.dtype] = FLOATS) -> list[str]:
    """Return why the C++ extension does not take the tensors among an op's arguments; empty if it does.

    Args:
        arguments: The op's arguments, or some of them.
        dtypes: Element types that the kernel was compiled for.
    """
    given = tensors_in(arguments)
    reasons = [f"tensors are on {device}" for device in sorted({str(t.device) for t in given if not t.is_cpu})]
    reasons += [f"dtype {dtype}" for dtype in sorted({str(t.dtype) for t in given if t.dtype not in dtypes})]
    missing = None if reasons else _native.missing()
    return [*reasons, missing] if missing else reasons


def splits(precision: str, *tensors: torch.Tensor) -> bool:
    """Return whether this precision splits operands into bfloat16 parts, for the matrix unit of this processor.

    That takes float32 sums. "medium" runs as "high": products of bfloat16 parts alone would miss its bound.

    Args:
        precision: What was asked for.
        tensors: Accumulators, or float32 operands.
    """
    return (
        precision != "highest"
        and all(tensor.dtype == torch.float32 for tensor in tensors)
        and _native.matrix_unit() is not None
    )


def zeros(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Return zeros of this shape with the dtype of `like`, float32 or float64.

    NumPy makes them, because torch fills with its OpenMP threads, which a forked child no longer has.
    """
    return torch.from_numpy(np.zeros(tuple(shape), dtype=np.float64 if like.dtype == torch.float64 else np.float32))
