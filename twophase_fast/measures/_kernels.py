"""Accept kernels as torch tensors or NumPy arrays, and check them."""

from __future__ import annotations

import numpy as np
import torch

from twophase_fast._matrix import as_matrix, tensor_of
from twophase_fast._types import InputError

Kernel = torch.Tensor | np.ndarray


def as_tensor(value: Kernel, name: str) -> torch.Tensor:
    """Return a float32 or float64 tensor, detached, without copying.

    Raises:
        InputError: Not a real floating-point array.
    """
    tensor = tensor_of(value, name)
    if tensor.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{name} must be float32 or float64, got {tensor.dtype}; convert it first")
    return tensor


def pair_of_kernels(first: Kernel, second: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two kernels of one shape and dtype (the wider one), as matrices where they have such a form.

    Raises:
        InputError: Not kernels, or of different shapes or devices.
    """
    a, b = as_tensor(first, "the first kernel"), as_tensor(second, "the second kernel")
    if a.shape != b.shape or a.ndim not in (2, 3, 4):
        raise InputError(
            f"two kernels of one shape [N,M], [N,M,C] or [N,M,C,C] are needed, got {tuple(a.shape)} and "
            f"{tuple(b.shape)}; compare kernels of the same probe set and output"
        )
    if a.device != b.device:
        raise InputError(f"the kernels are on {a.device} and {b.device}; move them to one device")
    dtype = torch.promote_types(a.dtype, b.dtype)
    a, b = a.to(dtype), b.to(dtype)
    return (a, b) if a.ndim == 3 else (as_matrix(a), as_matrix(b))


def square_matrix(kernel: Kernel, name: str = "kernel") -> torch.Tensor:
    """Return the finite, symmetric matrix of a kernel on one sample set, float64.

    Rounding of a float32 kernel that was not computed symmetrically is averaged away.

    Raises:
        InputError: Not square, not finite, or not symmetric to 1e-4 of its largest entry.
    """
    matrix = as_matrix(as_tensor(kernel, name)).double()
    if matrix.shape[0] != matrix.shape[1] or matrix.numel() == 0:
        raise InputError(f"{name} has matrix form {tuple(matrix.shape)}; a square one, of x against itself, is needed")
    if not bool(torch.isfinite(matrix).all()):
        raise InputError(f"{name} has NaN or infinite entries")
    asymmetry = float((matrix - matrix.T).abs().max())
    if asymmetry > 1e-4 * float(matrix.abs().max()):
        raise InputError(f"{name} is not symmetric: K and its transpose differ by up to {asymmetry:.3g}")
    return matrix if asymmetry == 0.0 else (matrix + matrix.T) / 2


def targets_like(matrix: torch.Tensor, samples: int, targets: Kernel) -> torch.Tensor:
    """Return targets in float64 as the columns that go with a kernel's matrix form.

    `[N, C]` stays as it is for an `[N, N]` kernel; for a full kernel it becomes the single column vec(Y) of length N·C.

    Raises:
        InputError: The number of samples or outputs does not match.
    """
    outputs = matrix.shape[0] // samples
    columns = as_tensor(targets, "targets (one-hot encode class labels first)").double()
    columns = columns.unsqueeze(1) if columns.ndim == 1 else columns
    right_width = columns.ndim == 2 and (outputs == 1 or columns.shape[1] == outputs)
    if not right_width or columns.shape[0] != samples:
        expected = f"[{samples}] or [{samples}, C]" if outputs == 1 else f"[{samples}, {outputs}]"
        raise InputError(f"targets have shape {tuple(targets.shape)}, expected {expected} to go with the kernel")
    return columns if outputs == 1 else columns.reshape(-1, 1)
