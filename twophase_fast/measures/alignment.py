"""How well a kernel is aligned with the targets."""

from __future__ import annotations

import math

import torch

from twophase_fast._types import InputError
from twophase_fast.measures._kernels import Kernel, square_matrix, targets_like


def kernel_alignment(kernel: Kernel, targets: Kernel) -> float:
    """Cosine between a kernel and the kernel of the targets.

        A = <K, YYᵀ>_F / (‖K‖_F ‖YYᵀ‖_F),

    for a full kernel with vec(Y) vec(Y)ᵀ in place of YYᵀ.

    Args:
        kernel: K of x against itself, `[N, N]` or full `[N, N, C, C]`.
        targets: Y, `[N, C]` (or `[N]`, taken as `[N, 1]`), floating point, for example one-hot.

    Returns:
        A in [0, 1] for a positive semi-definite K.

    Raises:
        InputError: Shapes do not match, values are not finite, or K or Y is zero.
    """
    matrix = square_matrix(kernel)
    return _alignment(matrix, targets_like(matrix, kernel.shape[0], targets))


def centered_kernel_alignment(kernel: Kernel, targets: Kernel) -> float:
    """Centred alignment (CKA) of a kernel with the targets.

        <HKH, HYYᵀH>_F / (‖HKH‖_F ‖HYYᵀH‖_F),  H = I − 11ᵀ/N.

    For a full kernel H acts on the samples of each output: (H ⊗ I_C) as_matrix(K) (H ⊗ I_C), and likewise on vec(Y).

    Args:
        kernel: K of x against itself, `[N, N]` or full `[N, N, C, C]`.
        targets: Y, `[N, C]` (or `[N]`, taken as `[N, 1]`), floating point.

    Returns:
        A in [0, 1] for a positive semi-definite K; unchanged when a constant is added to Y.

    Raises:
        InputError: Shapes do not match, values are not finite, or K or Y is zero once centred.
    """
    matrix, samples = square_matrix(kernel), kernel.shape[0]
    columns = targets_like(matrix, samples, targets)
    centred = _centre_rows(_centre_rows(matrix, samples).T, samples)
    return _alignment(centred, _centre_rows(columns, samples))


def _centre_rows(matrix: torch.Tensor, samples: int) -> torch.Tensor:
    """Subtract from every row n·C + c the mean over n, for each c."""
    split = matrix.reshape(samples, -1, matrix.shape[1])
    return (split - split.mean(0)).reshape(matrix.shape)


def _alignment(matrix: torch.Tensor, columns: torch.Tensor) -> float:
    product = float((columns * (matrix @ columns)).sum())
    norm = float(torch.linalg.matrix_norm(matrix)) * float(torch.linalg.matrix_norm(columns.T @ columns))
    if not 0 < norm < math.inf:
        raise InputError("kernel and targets must be finite and not zero (for the centred alignment: once centred)")
    return product / norm
