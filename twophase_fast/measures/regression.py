"""Ridge regression with a kernel."""

from __future__ import annotations

import torch

from twophase_fast._matrix import as_matrix
from twophase_fast._types import InputError
from twophase_fast.measures._kernels import Kernel, as_tensor, square_matrix, targets_like

_RESIDUAL = 1e-6  # relative residual of the solve beyond which predictions are not trusted


def kernel_regression(
    kernel_train: Kernel, kernel_test_train: Kernel, targets: Kernel, ridge: float = 0.0
) -> torch.Tensor:
    """Predict by kernel (ridge) regression, solved in float64.

        f(X*) = K(X*, X) (K(X, X) + ridge·I)⁻¹ Y.

    With an `[N, N]` kernel every column of Y is a regression of its own; with a full kernel the outputs are coupled and
    vec(Y) is solved for at once.

    Args:
        kernel_train: K(X, X), `[N, N]` or full `[N, N, C, C]`.
        kernel_test_train: K(X*, X), `[M, N]` or full `[M, N, C, C]`.
        targets: Y, `[N, C]` or `[N]`, floating point.
        ridge: Added to the diagonal, in the units of K; at least 0.

    Returns:
        Predictions, float64, `[M, C]` (or `[M]` if Y is `[N]`).

    Raises:
        InputError: Shapes do not match, or K + ridge·I is too ill-conditioned to be solved: raise the ridge.
    """
    if not 0 <= ridge < float("inf"):
        raise InputError(f"ridge must be at least 0 and finite, got {ridge!r}")
    matrix = square_matrix(kernel_train, "kernel_train")
    columns = targets_like(matrix, kernel_train.shape[0], targets)
    cross = as_matrix(as_tensor(kernel_test_train, "kernel_test_train")).double()
    if kernel_test_train.ndim != kernel_train.ndim or cross.shape[1] != matrix.shape[0]:
        raise InputError(
            f"kernel_test_train has shape {tuple(kernel_test_train.shape)}, which does not go with kernel_train "
            f"{tuple(kernel_train.shape)}; it is K(test, train) with the same output"
        )
    predictions = cross @ _solve(matrix, columns, ridge)
    return predictions.reshape(kernel_test_train.shape[0], *targets.shape[1:])


def _solve(matrix: torch.Tensor, columns: torch.Tensor, ridge: float) -> torch.Tensor:
    shifted = matrix + ridge * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if not bool(failed):
        weights = torch.cholesky_solve(columns, factor)
        residual = torch.linalg.norm(shifted @ weights - columns)
        if bool(residual <= _RESIDUAL * torch.linalg.norm(columns)):
            return weights
    scale = float(matrix.diagonal().mean())
    raise InputError(
        f"K(train, train) + {ridge:g}·I is singular to working precision; raise the ridge "
        f"(the mean of the diagonal is {scale:.3g}: try {1e-6 * scale:.1g})"
    )
