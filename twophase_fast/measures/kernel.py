"""How kernels differ from one another: distance, velocity, the angle of a cone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from twophase_fast._types import InputError
from twophase_fast.measures._kernels import Kernel, pair_of_kernels
from twophase_fast.ops import one_minus_cos


def kernel_distance(first: Kernel, second: Kernel) -> float:
    """Distance of two kernels in direction, whatever their sizes.

        S(K, K') = 1 − <K, K'>_F / (‖K‖_F ‖K'‖_F)

    computed in float64 and in difference form (`ops.one_minus_cos`), so that it is right down to 1e-20.

    Args:
        first: K, float32 or float64, `[N, M]`, `[N, M, C]` or full `[N, M, C, C]`, torch or numpy, any strides.
        second: K' of the same shape; if the dtypes differ the narrower one is widened.

    Returns:
        S in [0, 2]; exactly 0 for equal kernels.

    Raises:
        InputError: Shapes or devices differ, or a kernel is zero or not finite.
    """
    return float(one_minus_cos(*pair_of_kernels(first, second)))


def kernel_velocity(
    kernel: Kernel,
    later: Kernel,
    dt: float,
    *,
    steps_per_epoch: float | None = None,
    learning_rate: float | None = None,
) -> float:
    """Speed at which a kernel turns.

        v = S(K_t, K_{t+dt}) / dt.

    Args:
        kernel: K_t; see `kernel_distance`.
        later: K_{t+dt}.
        dt: Iterations between the two.
        steps_per_epoch: Given, the result is per epoch instead of per iteration.
        learning_rate: Given, the result is divided by it.

    Returns:
        v, in 1/iteration unless the options say otherwise.

    Raises:
        InputError: `dt`, `steps_per_epoch` or `learning_rate` is not positive and finite, or the kernels do not match.
    """
    for name, value in (("dt", dt), ("steps_per_epoch", steps_per_epoch), ("learning_rate", learning_rate)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} must be positive and finite, got {value!r}")
    per_iteration = kernel_distance(kernel, later) / dt
    return per_iteration * (steps_per_epoch or 1.0) / (learning_rate or 1.0)


def angle_degrees(distance: float | Sequence[float] | np.ndarray) -> np.ndarray:
    """Angle between two kernels from their distance S = 1 − cos.

        angle = 2·asin(√(S/2)), in degrees,

    which, unlike acos(1 − S), does not cancel for small S.

    Args:
        distance: S in [0, 2], or nan; any shape.

    Returns:
        Angles in [0, 180], float64, nan where S is nan.

    Raises:
        InputError: A distance outside [0, 2].
    """
    values = np.asarray(distance, dtype=np.float64)
    if np.any((values < 0) | (values > 2)):
        raise InputError(f"kernel distances lie in [0, 2], got {np.nanmin(values)} to {np.nanmax(values)}")
    return np.degrees(2 * np.arcsin(np.sqrt(values / 2)))


def cone_half_angle(distances: np.ndarray | torch.Tensor, steps: Sequence[int], window: int) -> np.ndarray:
    """Half-angle of the cone that the kernel stays in for a fixed window after each step τ.

        max over τ ≤ t ≤ τ + W of the angle 2·asin(√(S(K_t, K_τ)/2)), in degrees.

    The window W is the same for every τ. The value is blank (nan) where τ + W passes the last step: a maximum over
    whatever remains would shrink by construction. It is blank, too, where no other probe step lies in the window.

    Args:
        distances: S[i, j] between the kernels at `steps[i]` and `steps[j]`, `[T, T]`, in [0, 2].
        steps: Probe steps in iterations, increasing, `[T]`.
        window: W, in iterations.

    Returns:
        Degrees per step, float64 `[T]`, nan where blank.

    Raises:
        InputError: Shapes do not match, steps do not increase, or the window is not positive.
    """
    matrix, times = np.asarray(distances, dtype=np.float64), np.asarray(steps, dtype=np.float64)
    if times.ndim != 1 or matrix.shape != (len(times), len(times)):
        raise InputError(
            f"distances have shape {matrix.shape}, expected {(len(times), len(times))} for the steps given"
        )
    if np.any(np.diff(times) <= 0):
        raise InputError(f"steps must increase, got {list(steps)}")
    if not window > 0:
        raise InputError(f"window must be positive, got {window!r}")
    angles = angle_degrees(matrix)
    return np.array([_largest_angle(angles[i], times, time, window) for i, time in enumerate(times)])


def _largest_angle(angles: np.ndarray, times: np.ndarray, start: float, window: float) -> float:
    inside = (times > start) & (times <= start + window)
    if start + window > times[-1] or not inside.any():
        return math.nan
    return float(angles[inside].max())
