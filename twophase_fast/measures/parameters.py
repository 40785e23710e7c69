"""How far two models are apart in parameter space."""

from __future__ import annotations

import math
from dataclasses import dataclass

from twophase_fast._types import InputError
from twophase_fast.measures._parameters import Parameters, paired
from twophase_fast.ops import one_minus_cos, pair_moments


def parameter_dissimilarity(first: Parameters, second: Parameters) -> float:
    """Dissimilarity of two models in the direction of their parameters, over all of them as one vector.

        C(θ, θ') = 1 − <θ, θ'> / (‖θ‖ ‖θ'‖)

    computed in float64 and in difference form (`ops.one_minus_cos`): the relative error is below 1e-9 for relative
    differences ‖θ − θ'‖/‖θ‖ from 1 down to 1e-10, also where the difference is nearly parallel to θ.

    Args:
        first: θ: a module (its parameters, not its buffers; a tied one once), a state dict, a list of tensors or a
            tensor. Of a state dict the floating-point entries are taken, less BatchNorm's running statistics; against
            a module, only the entries that are parameters there.
        second: θ', with the same names, shapes and dtypes.

    Returns:
        C in [0, 2]; exactly 0 for equal parameters.

    Raises:
        InputError: Names, shapes or dtypes differ, or the parameters are zero or not finite.
    """
    _, a, b = paired(first, second)
    return float(one_minus_cos(a, b))


@dataclass(frozen=True)
class ParameterDistance:
    """Distance of two models; `float()` of it is `total`.

    Attributes:
        total: ‖θ − θ'‖₂ over all parameters.
        relative: `total` / ‖θ‖₂ (nan where θ is zero).
        per_parameter: The same as `total` for each parameter by itself.
        relative_per_parameter: `per_parameter` / its own norm in θ (nan where that is zero).
        largest: max |θ − θ'| over all entries.
        changed: Number of entries that differ.
        entries: Number of entries.
    """

    total: float
    relative: float
    per_parameter: dict[str, float]
    relative_per_parameter: dict[str, float]
    largest: float
    changed: int
    entries: int

    def __float__(self) -> float:
        return self.total


def parameter_distance(first: Parameters, second: Parameters) -> ParameterDistance:
    """Euclidean distance of two models, total, relative to ‖θ‖ and per parameter; float64.

        ‖θ − θ'‖₂  and  ‖θ − θ'‖₂ / ‖θ‖₂.

    Args:
        first: θ; see `parameter_dissimilarity`.
        second: θ', with the same names, shapes and dtypes.

    Returns:
        See `ParameterDistance`.

    Raises:
        InputError: Names, shapes or dtypes differ.
    """
    names, a, b = paired(first, second)
    moments = pair_moments(a, b)
    total = moments.total
    distances, norms = moments.dd.sqrt().tolist(), moments.xx.sqrt().tolist()
    return ParameterDistance(
        total=math.sqrt(float(total.dd)),
        relative=_ratio(math.sqrt(float(total.dd)), math.sqrt(float(total.xx))),
        per_parameter=dict(zip(names, distances)),
        relative_per_parameter={name: _ratio(d, n) for name, d, n in zip(names, distances, norms)},
        largest=float(total.max_abs_d),
        changed=int(total.changed),
        entries=sum(tensor.numel() for tensor in a),
    )


def lyapunov_exponent(distance: float, realised_norm: float, dt: float) -> float:
    """Finite-time Lyapunov exponent of a pair of twins.

        λ = (1/Δt) log(‖θ_t − θ'_t‖ / ‖realised ε‖).

    Args:
        distance: ‖θ_t − θ'_t‖₂, for example `parameter_distance(a, b).total`.
        realised_norm: ‖ε‖₂ as it arrived in the parameters (not as requested: rounding swallows part of it).
        dt: Δt in iterations since the spawn step.

    Returns:
        λ in 1/iteration; −inf if the twins have met again.

    Raises:
        InputError: The distance is negative or not finite, or the norm or Δt is not positive and finite.
    """
    if not 0 <= distance < math.inf:
        raise InputError(f"distance must be at least 0 and finite, got {distance!r}")
    for name, value in (("realised_norm", realised_norm), ("dt", dt)):
        if not 0 < value < math.inf:
            raise InputError(f"{name} must be positive and finite, got {value!r}")
    return -math.inf if distance == 0 else (math.log(distance) - math.log(realised_norm)) / dt


def _ratio(value: float, norm: float) -> float:
    return value / norm if norm else math.nan
