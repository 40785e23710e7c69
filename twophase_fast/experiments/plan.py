"""What an experiment measures, and at which steps: pure arithmetic, decided before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from twophase_fast._types import InputError, Output
from twophase_fast.training import Perturbation

MAIN, LOW_LR = "main", "low_lr"


@dataclass(frozen=True)
class Chaos:
    """Twin runs: spawned from the trunk, perturbed, trained on with the trunk's noise, compared at equal horizons.

    Attributes:
        spawn_steps: Steps t0 at which twins leave the trunk; 0 is initialisation.
        horizons: Steps h after spawning at which twin and trunk are compared; (t0, h) with t0 + h past the end is left
            out.
        perturbation: Family and size of ε.
        control_spawn_steps: Spawn steps of the control twins (ε = 0), among `spawn_steps`; None for all of them.
        barrier_alphas: Points on the line between twin and trunk, endpoints included.
        barrier_horizons: Horizons at which the loss barrier is evaluated; None for all of them.
        barrier_test_size: Test samples used for the barrier; None for all.
        barrier_batch_norm_size: Training samples on which BatchNorm statistics are estimated anew at every point of
            the line, endpoints included; None interpolates the statistics.
    """

    spawn_steps: Sequence[int]
    horizons: Sequence[int]
    perturbation: Perturbation = field(default_factory=Perturbation)
    control_spawn_steps: Sequence[int] | None = None
    barrier_alphas: int = 30
    barrier_horizons: Sequence[int] | None = None
    barrier_test_size: int | None = None
    barrier_batch_norm_size: int | None = None

    def __post_init__(self) -> None:
        _increasing("chaos.spawn_steps", self.spawn_steps, least=0)
        _increasing("chaos.horizons", self.horizons, least=1)
        _among("chaos.control_spawn_steps", self.control_spawn_steps, self.spawn_steps)
        _among("chaos.barrier_horizons", self.barrier_horizons, self.horizons)
        if self.barrier_alphas < 2:
            raise InputError(f"chaos.barrier_alphas is {self.barrier_alphas}; expected at least the 2 endpoints")

    def controls(self) -> Sequence[int]:
        """Spawn steps of the control twins."""
        return self.spawn_steps if self.control_spawn_steps is None else self.control_spawn_steps

    def barrier_at(self, horizon: int) -> bool:
        """Whether the barrier is evaluated at this horizon."""
        return self.barrier_horizons is None or horizon in self.barrier_horizons


@dataclass(frozen=True)
class Cone:
    """Kernels of one trunk at probe steps, and the distances between them.

    Attributes:
        probe_steps: Steps at which the kernel is computed.
        output: Form of the kernel; distances of "full" kernels are given for their trace as well.
        window: W of the half-angle, in steps.
        dts: Differences for the velocity; None for every difference between successive probe steps.
        references: Steps τ the report draws S(K_t, K_τ) for.
    """

    probe_steps: Sequence[int]
    output: Output = "full"
    window: int = 200
    dts: Sequence[int] | None = None
    references: Sequence[int] = ()

    def __post_init__(self) -> None:
        _increasing("cone.probe_steps", self.probe_steps, least=0)
        _among("cone.references", self.references, self.probe_steps)
        if self.window < 1:
            raise InputError(f"cone.window is {self.window}; expected a positive number of steps")
        if self.dts is not None:
            _increasing("cone.dts", self.dts, least=1)

    def differences(self) -> list[int]:
        """The dt of the velocity."""
        steps = self.probe_steps
        return sorted({b - a for a, b in pairwise(steps)} if self.dts is None else self.dts)


@dataclass(frozen=True)
class Controls:
    """Trunks beside the main ones that should show no effect.

    Attributes:
        low_lr: Learning rate of the control, or None for no such control.
        low_lr_seeds: Its seeds.
    """

    low_lr: float | None = None
    low_lr_seeds: Sequence[int] = (0,)


@dataclass(frozen=True)
class TrunkName:
    """One trained run: the variant it belongs to, its seed, and the learning rate that replaces the optimizer's."""

    variant: str
    seed: int
    learning_rate: float | None = None

    def __str__(self) -> str:
        return f"{self.variant}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """All steps at which something happens to a trunk, and all twins that leave it."""

    steps: int
    seeds: Sequence[int]
    evaluate_every: int
    chaos: Chaos | None = None
    cone: Cone | None = None
    controls: Controls = field(default_factory=Controls)

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("evaluate_every", self.evaluate_every)):
            if value < 1:
                raise InputError(f"{name} is {value}; expected at least 1")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds are {list(self.seeds)}; expected one or more different ones")
        for t0 in self.spawn_steps:
            if not self.horizons(t0):
                raise InputError(
                    f"a twin spawned at step {t0} reaches none of chaos.horizons within {self.steps} steps; drop the "
                    "spawn step, add a shorter horizon or train longer"
                )
        if self.cone and self.cone.probe_steps[-1] > self.steps:
            raise InputError(f"cone.probe_steps end at {self.cone.probe_steps[-1]}, after the last step {self.steps}")

    @property
    def trunks(self) -> list[TrunkName]:
        """Every trunk, the main ones first."""
        low = self.controls.low_lr
        main = [TrunkName(MAIN, seed) for seed in self.seeds]
        return main + ([TrunkName(LOW_LR, seed, low) for seed in self.controls.low_lr_seeds] if low else [])

    @property
    def spawn_steps(self) -> Sequence[int]:
        """Steps at which twins leave a trunk."""
        return self.chaos.spawn_steps if self.chaos else ()

    def horizons(self, spawn_step: int) -> list[int]:
        """Horizons that a twin spawned there reaches before the end."""
        return [h for h in self.chaos.horizons if spawn_step + h <= self.steps] if self.chaos else []

    @property
    def twins(self) -> list[tuple[int, bool]]:
        """(spawn step, is it the control) of every twin of a trunk."""
        if self.chaos is None:
            return []
        return [(t0, False) for t0 in self.spawn_steps] + [(t0, True) for t0 in self.chaos.controls()]

    @cached_property
    def reference_steps(self) -> frozenset[int]:
        """Steps at which a trunk's weights are compared with something."""
        compared = {t0 + h for t0 in self.spawn_steps for h in self.horizons(t0)}
        return frozenset(compared | set(self.spawn_steps) | set(self.probe_steps) | {0, self.steps})

    @property
    def probe_steps(self) -> Sequence[int]:
        """Steps with a kernel."""
        return self.cone.probe_steps if self.cone else ()

    @cached_property
    def evaluation_steps(self) -> frozenset[int]:
        """Steps at which loss and accuracy are measured."""
        regular = set(range(0, self.steps + 1, self.evaluate_every))
        return frozenset(regular | set(self.probe_steps) | {self.steps})

    @property
    def total_steps(self) -> int:
        """Training steps of all trunks and twins together."""
        per_trunk = self.steps + sum(max(self.horizons(t0)) for t0, _ in self.twins)
        return per_trunk * len(self.trunks)


def _increasing(name: str, values: Sequence[int], least: int) -> None:
    integers = all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    if not values or not integers or values[0] < least or any(b <= a for a, b in pairwise(values)):
        raise InputError(f"{name} is {list(values)}; expected increasing integers from {least} upwards")


def _among(name: str, values: Sequence[int] | None, allowed: Sequence[int]) -> None:
    strangers = sorted(set(values or ()) - set(allowed))
    if strangers:
        raise InputError(f"{name} has {strangers}, which are not among {list(allowed)}")
