"""A kernel as a matrix: `[N, M, C, C]` to `[N·C, M·C]`, sample-major, and back; as a tensor, from NumPy."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

from twophase_fast._types import InputError

Array = TypeVar("Array", torch.Tensor, np.ndarray)


def tensor_of(value: torch.Tensor | np.ndarray, name: str) -> torch.Tensor:
    """Return a tensor that shares memory with `value` where torch can.

    Arrays with negative strides, foreign byte order or no write access are copied.

    Args:
        value: Tensor (returned detached) or array.
        name: What it is, for the message.

    Returns:
        A tensor of the same numbers.

    Raises:
        InputError: Neither a tensor nor an array, or of a dtype that torch lacks.
    """
    if isinstance(value, torch.Tensor):
        return value.detach()
    if not isinstance(value, np.ndarray):
        raise InputError(f"{name} must be a torch tensor or a NumPy array, got {type(value).__name__}")
    plain = value.flags.writeable and value.dtype.isnative and min(value.strides, default=0) >= 0
    try:
        return torch.from_numpy(value if plain else value.astype(value.dtype.newbyteorder("="), order="C", copy=True))
    except TypeError as error:
        raise InputError(f"{name} has dtype {value.dtype}, which torch lacks; convert it to float64") from error


def as_matrix(kernel: Array) -> Array:
    """View a kernel as one matrix, sample-major.

    Row `n·C + c` belongs to output `c` of sample `n`:

        as_matrix(K)[n·C + c, m·C + c'] = K[n, m, c, c'].

    Args:
        kernel: `[N, M]` (trace or sum), returned unchanged, or full `[N, M, C, C]`; torch or numpy, any strides.

    Returns:
        `[N, M]` or `[N·C, M·C]` of the same type and dtype. No copy is made where the memory is laid out as
        `[N, C, M, C]`, which is how `entk` returns full kernels.

    Raises:
        InputError: The kernel has neither two nor four axes, or the last two differ in length.
    """
    if kernel.ndim == 2:
        return kernel
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3]:
        raise InputError(
            f"a kernel of shape {tuple(kernel.shape)} has no matrix form; expected [N, M] or [N, M, C, C] "
            "(for output='diagonal' take one output at a time: kernel[..., c])"
        )
    samples, others, outputs, _ = kernel.shape
    ordered = kernel.transpose(0, 2, 1, 3) if isinstance(kernel, np.ndarray) else kernel.permute(0, 2, 1, 3)
    return ordered.reshape(samples * outputs, others * outputs)


def from_matrix(matrix: Array, outputs: int) -> Array:
    """Undo `as_matrix`: a view `[N, M, C, C]` of a matrix `[N·C, M·C]`.

    Args:
        matrix: `[N·C, M·C]`, torch or numpy.
        outputs: C, at least 1.

    Returns:
        `[N, M, C, C]` with `result[n, m, c, c'] = matrix[n·C + c, m·C + c']`, sharing memory where the strides
        of `matrix` allow it.

    Raises:
        InputError: `matrix` has not two axes, or C does not divide both lengths.
    """
    if matrix.ndim != 2 or outputs < 1 or matrix.shape[0] % outputs or matrix.shape[1] % outputs:
        raise InputError(
            f"a matrix of shape {tuple(matrix.shape)} cannot be split into blocks of {outputs} outputs; "
            "expected [N*C, M*C] with C = outputs"
        )
    rows, columns = matrix.shape[0] // outputs, matrix.shape[1] // outputs
    split = matrix.reshape(rows, outputs, columns, outputs)
    return split.transpose(0, 2, 1, 3) if isinstance(split, np.ndarray) else split.permute(0, 2, 1, 3)
