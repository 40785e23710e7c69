"""Perturbations of a run's weights, and what they really changed.

Rounding swallows small perturbations: a total norm of 1e-7 spread over 33.6 M float32 weights changes about one in a
hundred of them. So every perturbation reports the requested norm, the realised norm and the number of changed entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from twophase_fast._types import InputError
from twophase_fast.ops import pair_moments

Gradient = Callable[[], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Perturbation:
    """θ -> θ + ε, with θ all trainable parameters taken as one vector and z standard Gaussian.

    | kind | ε | norm |
    |---|---|---|
    | `gaussian` | ‖ε‖ · z/‖z‖ | ‖ε‖ |
    | `gaussian_relative` | ‖ε‖ · z/‖z‖ | ‖ε‖ / ‖θ‖ |
    | `gaussian_init` | ‖ε‖ · u/‖u‖, u = σ₀·z | ‖ε‖ / ‖θ₀‖ |
    | `gradient` | ‖ε‖ · g/‖g‖, g the loss gradient of the next batch | ‖ε‖ |
    | `single_weight` | one entry, drawn at random, moves by `norm` | ‖ε‖ |

    θ₀ are the parameters at initialisation, σ₀ the standard deviation of each of their tensors.

    Attributes:
        kind: Which family.
        norm: Size, in the unit of the last column; 0 gives the control twin.

    Raises:
        InputError: The kind is not known, or the norm is negative or not finite.
    """

    kind: str = "gaussian_relative"
    norm: float = 1e-4

    def __post_init__(self) -> None:
        if self.kind not in _DIRECTIONS:
            raise InputError(f"unknown perturbation kind {self.kind!r}; known: {', '.join(_DIRECTIONS)}")
        if not (math.isfinite(self.norm) and self.norm >= 0):
            raise InputError(f"perturbation norm is {self.norm}; it must be finite and not negative")


@dataclass(frozen=True)
class Realised:
    """What a perturbation did, measured on the stored weights in float64.

    Attributes:
        requested_norm: ‖ε‖ as asked for, in absolute terms.
        realised_norm: ‖θ_after − θ_before‖.
        changed_entries: Entries whose stored value changed.
        total_entries: Entries of θ.
    """

    requested_norm: float
    realised_norm: float
    changed_entries: int
    total_entries: int


def perturb(
    model: nn.Module,
    perturbation: Perturbation,
    generator: torch.Generator,
    *,
    initial: Mapping[str, torch.Tensor] | None = None,
    gradient: Gradient | None = None,
) -> Realised:
    """Perturb a model's trainable parameters in place.

    The sum θ + ε is formed in float64 and rounded once to the parameter's dtype.

    Args:
        model: Its parameters that require grad are θ; a tied weight counts once.
        perturbation: Family and size.
        generator: CPU generator of the draw; it alone decides ε.
        initial: Parameters at initialisation by name; needed for `gaussian_init`.
        gradient: Function returning the loss gradient, one tensor per trainable parameter; needed for `gradient`.

    Returns:
        Requested and realised norm, changed and total entries.

    Raises:
        InputError: `initial` or `gradient` is needed and missing, the model has no trainable parameters, or the
            direction is zero everywhere.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise InputError("the model has no parameter that requires grad; there is nothing to perturb")
    before = [p.detach().clone() for p in named.values()]
    total = sum(p.numel() for p in before)
    if perturbation.norm == 0:
        return Realised(0.0, 0.0, 0, total)
    direction = _DIRECTIONS[perturbation.kind](named, generator, initial, gradient)
    requested = perturbation.norm * _unit(perturbation.kind, before, initial)
    length = _norm(direction)
    if length == 0:
        raise InputError(f"the direction of the {perturbation.kind!r} perturbation is zero everywhere")
    with torch.no_grad():
        for parameter, step in zip(named.values(), direction):
            parameter.copy_(parameter.double() + step.to(parameter.device) * (requested / length))
    moments = pair_moments(before, [p.detach() for p in named.values()]).total
    return Realised(requested, math.sqrt(float(moments.dd)), int(moments.changed), total)


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


def _unit(kind: str, before: Sequence[torch.Tensor], initial: Mapping[str, torch.Tensor] | None) -> float:
    if kind == "gaussian_relative":
        return _norm(before)
    if kind == "gaussian_init":
        assert initial is not None  # checked when the direction was drawn
        return _norm(list(initial.values()))
    return 1.0


def _gaussian(named, generator, initial, gradient) -> list[torch.Tensor]:
    return [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in named.values()]


def _gaussian_init(named, generator, initial, gradient) -> list[torch.Tensor]:
    if initial is None or set(initial) != set(named):
        raise InputError(
            "a 'gaussian_init' perturbation needs the parameters at initialisation: pass initial={name: tensor} with "
            "every trainable parameter"
        )
    scales = [initial[name].double().std(correction=0).cpu() for name in named]
    return [z * scale for z, scale in zip(_gaussian(named, generator, None, None), scales)]


def _gradient(named, generator, initial, gradient) -> list[torch.Tensor]:
    if gradient is None:
        raise InputError("a 'gradient' perturbation needs gradient=, a function returning the loss gradient")
    return [g.detach().double() for g in gradient()]


def _single_weight(named, generator, initial, gradient) -> list[torch.Tensor]:
    direction = [torch.zeros(p.shape, dtype=torch.float64) for p in named.values()]
    index = int(torch.randint(sum(p.numel() for p in direction), (), generator=generator))
    for tensor in direction:
        if index < tensor.numel():
            tensor.view(-1)[index] = 1.0
            break
        index -= tensor.numel()
    return direction


_DIRECTIONS = {
    "gaussian": _gaussian,
    "gaussian_relative": _gaussian,
    "gaussian_init": _gaussian_init,
    "gradient": _gradient,
    "single_weight": _single_weight,
}
