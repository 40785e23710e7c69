"""The eigenvalues of a kernel and the ranks that summarise them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from twophase_fast._types import InputError
from twophase_fast.measures._kernels import Kernel, as_tensor, square_matrix

_NEGATIVE = 1e-2  # share of the largest eigenvalue below which a negative one counts as rounding


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a kernel, and what follows from them.

    Attributes:
        eigenvalues: All of them, decreasing, float64 `[N·C]`. Rounding can make the smallest ones negative.
        trace: tr K.
        effective_rank: exp(−Σ p_i log p_i) with p_i = max(λ_i, 0) / Σ max(λ_j, 0).
        participation_ratio: (tr K)² / ‖K‖_F².
        stable_rank: ‖K‖_F² / λ_max².
    """

    eigenvalues: torch.Tensor
    trace: float
    effective_rank: float
    participation_ratio: float
    stable_rank: float


def spectrum(kernel: Kernel) -> Spectrum:
    """Compute all eigenvalues of a kernel of x against itself, in float64, and its ranks.

    The whole matrix is decomposed: memory 2·8·(N·C)² bytes, time O((N·C)³).

    Args:
        kernel: `[N, N]` or full `[N, N, C, C]` (its matrix form `as_matrix(K)` is used).

    Returns:
        See `Spectrum`.

    Raises:
        InputError: Not square, symmetric, finite and positive semi-definite, or zero.
    """
    values = _eigenvalues(kernel)
    return Spectrum(
        eigenvalues=values,
        trace=float(values.sum()),
        effective_rank=effective_rank(values),
        participation_ratio=participation_ratio(values),
        stable_rank=stable_rank(values),
    )


def effective_rank(kernel: Kernel) -> float:
    """Exponential of the entropy of the normalised eigenvalues.

        exp(−Σ p_i log p_i),  p_i = λ_i / tr K.

    Args:
        kernel: `[N, N]`, full `[N, N, C, C]`, or its eigenvalues `[R]`.

    Returns:
        Between 1 and the number of eigenvalues.

    Raises:
        InputError: See `spectrum`.
    """
    values = _eigenvalues(kernel).clamp(min=0)
    shares = values / values.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))


def participation_ratio(kernel: Kernel) -> float:
    """Number of directions that take part: (tr K)² / ‖K‖_F². Needs no eigenvalues.

    Args:
        kernel: `[N, N]`, full `[N, N, C, C]`, or its eigenvalues `[R]`.

    Returns:
        Between 1 and the number of eigenvalues.

    Raises:
        InputError: Not square, symmetric and finite, or zero.
    """
    if kernel.ndim == 1:
        values = _eigenvalues(kernel)
        return float(values.sum() ** 2 / (values * values).sum())
    matrix = square_matrix(kernel)
    _refuse_zero(matrix)
    return float(matrix.trace() ** 2 / (matrix * matrix).sum())


def stable_rank(kernel: Kernel) -> float:
    """‖K‖_F² / λ_max².

    Args:
        kernel: `[N, N]`, full `[N, N, C, C]`, or its eigenvalues `[R]`.

    Returns:
        Between 1 and the number of eigenvalues.

    Raises:
        InputError: See `spectrum`.
    """
    values = _eigenvalues(kernel)
    return float((values * values).sum() / values.max() ** 2)


def _eigenvalues(kernel: Kernel) -> torch.Tensor:
    """Eigenvalues, decreasing; given as such if there is only one axis.

    Raises:
        InputError: Not a kernel of x against itself, or zero.
    """
    if kernel.ndim == 1:
        values = as_tensor(kernel, "eigenvalues").double().sort(descending=True).values
    else:
        values = torch.linalg.eigvalsh(square_matrix(kernel)).flip(0)
    _refuse_zero(values)
    if float(values[-1]) < -_NEGATIVE * float(values[0]):
        raise InputError(
            f"the kernel is not positive semi-definite: eigenvalues from {float(values[-1]):.3g} to "
            f"{float(values[0]):.3g}; a kernel of x against itself is needed"
        )
    return values


def _refuse_zero(values: torch.Tensor) -> None:
    if values.numel() == 0 or not bool(torch.isfinite(values).all()) or not bool(values.any()):
        raise InputError("the kernel is empty, zero or not finite; its ranks are undefined")
