"""Synthetic trajectories with known answers, written through the storage API as an experiment writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import torch

from twophase_fast.storage import Trajectory

NAN = float("nan")


@dataclass(frozen=True)
class Recipe:
    """What to fake; every effect can be switched off."""

    steps: int = 600
    seeds: tuple[int, ...] = (0, 1, 2)
    low_lr_seeds: tuple[int, ...] = (0,)
    spawn_steps: tuple[int, ...] = (0, 10, 25, 50, 100, 200, 300, 400)
    horizons: tuple[int, ...] = (10, 25, 50, 100, 200)
    barrier_horizon: int = 200
    probe_steps: tuple[int, ...] = (0, 10, 25, 50, 75, 100, 150, 200, 250, 300, 350, 400, 450, 500, 550, 600)
    outputs: tuple[str, ...] = ("full", "trace")
    window: int = 100
    dts: tuple[int, ...] = (50, 100, 200)
    chaos: bool = True
    control_falls: bool = False
    barrier: float = 0.0
    cone: bool = True
    control_exact: bool = True
    tables: tuple[str, ...] = ("twins", "ceilings", "kernel_distance", "cone", "velocity")
    config: dict = field(default_factory=dict)


def write(path: Path, recipe: Recipe = Recipe()) -> Path:
    """Write the trajectory of a recipe and return its path."""
    noise = torch.Generator().manual_seed(7)
    with Trajectory.create(path, config={**_config(recipe), **recipe.config}) as trajectory:
        trajectory.set_attrs({"kind": "experiment"})
        for variant, seed in _trunks(recipe):
            _write_trunk(trajectory, recipe, variant, seed, noise)
        makers = {
            "twins": twins,
            "ceilings": ceilings,
            "kernel_distance": distances,
            "cone": angles,
            "velocity": velocity,
        }
        for name in recipe.tables:
            trajectory.append_rows(name, makers[name](recipe, noise))
    return path


def write_tracker(path: Path, steps: tuple[int, ...] = (0, 10, 20, 40)) -> Path:
    """Write what a tracker leaves: kernels and metrics at the root, no tables."""
    noise = torch.Generator().manual_seed(3)
    with Trajectory.create(path, config={"model": "mine"}) as trajectory:
        kernel = torch.eye(4, dtype=torch.float64).reshape(4, 4, 1, 1)
        for step in steps:
            kernel = kernel + 0.1 * torch.rand(4, 4, 1, 1, generator=noise, dtype=torch.float64)
            trajectory.append(step, kernel=kernel + kernel.transpose(0, 1), metrics={"my_loss": 1 / (1 + step)})
    return path


def _trunks(recipe: Recipe) -> list[tuple[str, int]]:
    return [("main", s) for s in recipe.seeds] + [("low_lr", s) for s in recipe.low_lr_seeds]


def _config(recipe: Recipe) -> dict:
    return {
        "model": "cnn",
        "data": "fashion-mnist-subset",
        "steps": recipe.steps,
        "batch_size": 64,
        "seeds": list(recipe.seeds),
        "test_size": 1000,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
        "chaos": {
            "spawn_steps": list(recipe.spawn_steps),
            "horizons": list(recipe.horizons),
            "perturbation": {"kind": "relative_gaussian", "norm": 1e-4},
            "barrier_alphas": 11,
            "barrier_horizons": [recipe.barrier_horizon],
            "barrier_test_size": 500,
        },
        "cone": {
            "probe_steps": list(recipe.probe_steps),
            "probe_size": 64,
            "output": "full",
            "window": recipe.window,
            "dts": list(recipe.dts),
            "references": [0, 50, 100, 200, 400],
        },
        "controls": {"low_lr": 0.01, "low_lr_seeds": list(recipe.low_lr_seeds)},
    }


def _write_trunk(trajectory: Trajectory, recipe: Recipe, variant: str, seed: int, noise: torch.Generator) -> None:
    rate = 0.1 if variant == "main" else 0.01
    attrs = {"variant": variant, "seed": seed, "learning_rate": rate, "steps_per_epoch": 94}
    child = trajectory.child(f"{variant}-seed{seed}", attrs=attrs)
    for step in sorted({*recipe.probe_steps, *range(0, recipe.steps + 1, 25)}):
        progress = math.exp(-step * rate * 0.15) if rate else 1
        jitter = 0.03 * float(torch.rand((), generator=noise))
        metrics = {
            "train_loss": 0.35 + 1.95 * progress + jitter,
            "test_loss": 0.45 + 1.85 * progress + jitter,
            "test_accuracy": 0.84 - 0.74 * progress - jitter,
            "learning_rate": rate,
            "parameter_norm": 9 + 0.004 * step * rate * 10,
        }
        child.append(step, metrics=metrics)


def _factor(noise: torch.Generator, spread: float = 0.5) -> float:
    return math.exp(spread * (2 * float(torch.rand((), generator=noise)) - 1))


def _decay(recipe: Recipe, variant: str, step: float) -> float:
    falls = recipe.chaos if variant == "main" else recipe.control_falls
    return math.exp(-step / 100) if falls else 1.0


def dissimilarity(recipe: Recipe, variant: str, spawn: int, horizon: int, noise: torch.Generator) -> float:
    """Fake C: exponential growth with the horizon up to a ceiling that falls with the spawn step."""
    top = (0.08 if variant == "main" else 0.002) * _decay(recipe, variant, spawn)
    return top * (1 - math.exp(-((horizon / 120) ** 2))) * _factor(noise)


def twins(recipe: Recipe, noise: torch.Generator) -> list[dict]:
    return [
        _twin(recipe, variant, seed, spawn, horizon, control, noise)
        for variant, seed in _trunks(recipe)
        for spawn in recipe.spawn_steps
        for horizon in recipe.horizons
        for control in (0, 1)
        if spawn + horizon <= recipe.steps
    ]


def _twin(
    recipe: Recipe, variant: str, seed: int, spawn: int, horizon: int, control: int, noise: torch.Generator
) -> dict:
    c = dissimilarity(recipe, variant, spawn, horizon, noise)
    floor = 0.0 if recipe.control_exact else 1e-9
    with_barrier = horizon == recipe.barrier_horizon and not control
    barrier = recipe.barrier * math.exp(-spawn / 100) * _factor(noise, 0.2) + 0.004 * float(
        torch.rand((), generator=noise)
    )
    return {
        "variant": variant,
        "seed": seed,
        "spawn_step": spawn,
        "horizon": horizon,
        "control": control,
        "perturbation": "none" if control else "relative_gaussian",
        "requested_norm": 0.0 if control else 9e-4,
        "realised_norm": 0.0 if control else 8.97e-4 * _factor(noise, 0.002),
        "changed_entries": 0 if control else 6001,
        "total_entries": 6074,
        "dissimilarity": floor if control else c,
        "distance": floor if control else 9 * math.sqrt(2 * c),
        "relative_distance": floor if control else math.sqrt(2 * c),
        "barrier": barrier if with_barrier else NAN,
        "disagreement": 0.0 if control else min(0.4, 0.5 * math.sqrt(c)),
        "twin_test_loss": 0.5,
        "trunk_test_loss": 0.5,
    }


def ceilings(recipe: Recipe, noise: torch.Generator) -> list[dict]:
    return [
        {
            "variant": "main",
            "seed_a": a,
            "seed_b": b,
            "step": step,
            "dissimilarity": 0.6 * _factor(noise, 0.1),
            "distance": 12.0 * _factor(noise, 0.1),
            "relative_distance": 1.2,
            "disagreement": 0.2 * _factor(noise, 0.2),
        }
        for a, b in combinations(recipe.seeds, 2)
        for step in sorted({s + h for s in recipe.spawn_steps for h in recipe.horizons if s + h <= recipe.steps})
    ]


def kernel_time(recipe: Recipe, variant: str, step: float) -> float:
    """Fake position of the kernel on its path: it slows down if the cone effect is on."""
    speed = 1.0 if variant == "main" else 0.3
    if variant == "low_lr" or not recipe.cone:
        return speed * step / 600
    return 1.2 * (1 - math.exp(-step / 60)) + 0.15 * step / 600


def _distance(recipe: Recipe, variant: str, output: str, first: int, last: int, noise: torch.Generator) -> float:
    gap = abs(kernel_time(recipe, variant, last) - kernel_time(recipe, variant, first))
    return (1 - math.exp(-1.1 * gap)) * (0.8 if output == "trace" else 1.0) * _factor(noise, 0.1)


def _pairs(recipe: Recipe) -> list[tuple[str, int, str, int, int]]:
    return [
        (variant, seed, output, first, last)
        for variant, seed in _trunks(recipe)
        for output in recipe.outputs
        for first, last in combinations(recipe.probe_steps, 2)
    ]


def distances(recipe: Recipe, noise: torch.Generator) -> list[dict]:
    return [
        {
            "variant": variant,
            "seed": seed,
            "output": output,
            "step_a": first,
            "step_b": last,
            "distance": _distance(recipe, variant, output, first, last, noise),
            "relative_parameter_distance": 0.02 * math.sqrt(last - first) * (1.0 if variant == "main" else 0.2),
        }
        for variant, seed, output, first, last in _pairs(recipe)
    ]


def angles(recipe: Recipe, noise: torch.Generator) -> list[dict]:
    rows = []
    for variant, seed in _trunks(recipe):
        for output in recipe.outputs:
            for step in recipe.probe_steps:
                inside = step + recipe.window <= recipe.steps
                gap = kernel_time(recipe, variant, step + recipe.window) - kernel_time(recipe, variant, step)
                angle = 60 * math.sqrt(gap) * _factor(noise, 0.1)
                rows.append(
                    {
                        "variant": variant,
                        "seed": seed,
                        "output": output,
                        "step": step,
                        "window": recipe.window,
                        "half_angle_degrees": angle if inside else NAN,
                    }
                )
    return rows


def velocity(recipe: Recipe, noise: torch.Generator) -> list[dict]:
    rows = []
    for variant, seed, output, first, last in _pairs(recipe):
        dt, rate = last - first, 0.1 if variant == "main" else 0.01
        if dt in recipe.dts:
            speed = _distance(recipe, variant, output, first, last, noise) / dt
            rows.append(
                {
                    "variant": variant,
                    "seed": seed,
                    "output": output,
                    "step": first,
                    "dt": dt,
                    "velocity": speed,
                    "velocity_per_epoch": speed * 94,
                    "velocity_per_learning_rate": speed / rate,
                }
            )
    return rows
