"""What the page cannot say: limits that hold for any such run, and those of this one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from twophase_fast.report import cone_series as cone
from twophase_fast.report.data import LOW_LR, MAIN, Run, rows, setting, unique, where
from twophase_fast.report.numbers import count, pretty
from twophase_fast.report.spread import metric_over_steps

FEW_SEEDS = 5
NORM_CHANGE = 1.5
"""From this ratio of first and last parameter norm the page mentions it."""

SWALLOWED = 0.5
"""Below this share of changed entries a perturbation was mostly lost to rounding."""


def limits(run: Run) -> list[str]:
    """Return the notes on limits, those computed from this run first."""
    return [*_seeds(run), *_control(run), *_norm(run), *_twins(run), *_cone(run)]


def _seeds(run: Run) -> Iterator[str]:
    seeds = len({trunk.seed for trunk in run.trunks if trunk.variant == MAIN})
    if 0 < seeds < FEW_SEEDS:
        yield (
            f"{count(seeds, 'seed')}: ranges are the lowest and highest seed, not confidence intervals, and 'in every "
            "seed' is the strongest statement made."
        )


def _control(run: Run) -> Iterator[str]:
    seeds = {trunk.seed for trunk in run.trunks if trunk.variant == LOW_LR}
    if not seeds and run.tables:
        yield "No low-learning-rate control was run, so slower learning is not excluded as the cause of any fall."
    if len(seeds) == 1:
        yield "The low-learning-rate control is a single run."


def _norm(run: Run) -> Iterator[str]:
    """Say so where the parameters grew or shrank much: every relative figure divides by their norm."""
    norms = metric_over_steps(run, MAIN, "parameter_norm")
    if not norms or not rows(run.table("twins")):
        return
    first, last = norms[min(norms)].mean, norms[max(norms)].mean
    if max(first, last) > NORM_CHANGE * min(first, last):
        yield (
            f"The parameter norm goes from {pretty(first)} to {pretty(last)} during training; C, relative distances "
            "and relative perturbations are measured against the norm of their own step."
        )


def _twins(run: Run) -> Iterator[str]:
    twins = where(run.table("twins"), control=0)
    if not rows(twins):
        return
    kinds = unique(twins, "perturbation")
    if len(kinds) > 1:
        yield f"Several perturbations were run ({', '.join(kinds)}); the figures show {kinds[0]} only."
    if "changed_entries" in twins and np.any(twins["changed_entries"] < SWALLOWED * twins["total_entries"]):
        yield "Some perturbations changed fewer than half of the parameters: the rest was lost to rounding."
    if size := setting(run.config, "chaos.barrier_test_size"):
        alphas = setting(run.config, "chaos.barrier_alphas", "several")
        yield f"Loss barriers are maxima over {_length(alphas)} points of the path, on {int(size):,} test images."


def _length(alphas: object) -> str:
    return str(len(alphas)) if isinstance(alphas, list | tuple) else str(alphas)


def _cone(run: Run) -> Iterator[str]:
    window = cone.window(run)
    if window is not None:
        yield (
            f"Half-angles are taken over the probe steps stored inside the window of {window:,} iterations; "
            "a finer grid of probe steps can only make them larger."
        )
    if size := setting(run.config, "cone.probe_size"):
        yield f"Kernels are those of {int(size):,} probe images, S included."
