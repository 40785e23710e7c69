"""Loss barrier between trunk and twin: early twins end in another basin, late ones in the same."""

from __future__ import annotations

import numpy as np

from twophase_fast.report.data import LOW_LR, MAIN, Run, Table, where
from twophase_fast.report.findings.equal_horizon import Comparison, compare, twins_only
from twophase_fast.report.findings.verdict import Finding, Outcome, in_seeds, some_seeds
from twophase_fast.report.numbers import between, pretty
from twophase_fast.report.spread import spreads

BARRIER_SHARE = 0.1
"""A barrier counts from this share of the test loss of its two end points."""

BARRIER_FALL = 2.0
"""The barrier of the latest spawn step must be at most the earliest one's divided by this."""

CRITERION = (
    f"Seen when, at equal horizon, the barrier at the earliest spawn step is at least {BARRIER_SHARE:.0%} of the test "
    f"loss of its end points in every seed and at least {BARRIER_FALL:g} times that at the latest spawn step. A "
    "barrier is a maximum and so never negative: below that share it counts as none."
)


def barrier_finding(run: Run) -> Finding | None:
    """Return the verdict on the loss barrier, or None where none was evaluated at two spawn steps."""
    twins = run.table("twins")
    main = compare(twins, MAIN, "barrier")
    if main is None:
        return None
    high = {seed: main.first[seed] >= _threshold(twins, main, seed) for seed in main.first}
    hits = sum(high[seed] and main.first[seed] >= BARRIER_FALL * main.last[seed] for seed in high)
    outcome: Outcome = "seen" if hits == len(high) else "none"
    sentence = _sentence(outcome, main, hits, high) + _largest(twins)
    return Finding("Loss barrier", outcome, sentence, CRITERION)


def _threshold(twins: Table, main: Comparison, seed: int) -> float:
    cell = where(twins_only(twins, MAIN), seed=seed, spawn_step=main.earliest, horizon=main.horizon)
    return barrier_threshold(cell)


def barrier_threshold(cells: Table) -> float:
    """Return from what a barrier counts: a share of the end points' mean test loss, of 1 where that is not stored."""
    losses = [cells[name] for name in ("twin_test_loss", "trunk_test_loss") if name in cells]
    losses = [loss[np.isfinite(loss)] for loss in losses]
    known = np.concatenate(losses) if losses else np.array([])
    return BARRIER_SHARE * (float(known.mean()) if known.size else 1.0)


def _sentence(outcome: Outcome, main: Comparison, hits: int, high: dict[int, bool]) -> str:
    first = between(min(main.first.values()), max(main.first.values()))
    last = between(min(main.last.values()), max(main.last.values()))
    change = (
        f"at h = {main.horizon} the barrier is {first} over seeds for twins spawned at step {main.earliest} and {last} "
        f"for step {main.latest}"
    )
    if outcome == "seen":
        return f"A barrier that falls with the spawn step is seen {in_seeds(high)}: {change}."
    if all(high.values()):
        return f"No effect seen: a barrier is there, but it falls {some_seeds(hits, len(high))}: {change}."
    counted = f"No effect seen: {change}, which counts as a barrier {some_seeds(sum(high.values()), len(high))}"
    return f"{counted}." if any(high.values()) else f"{counted}: near 0, trunk and twin stay linearly connected."


def _largest(twins: Table) -> str:
    """State the largest barrier anywhere, of the runs and of the low-learning-rate control."""
    found = {variant: spreads(twins_only(twins, variant), ("spawn_step",), "barrier") for variant in (MAIN, LOW_LR)}
    largest = {v: pretty(max(s.high for s in grid.values())) for v, grid in found.items() if grid}
    control = f", {largest[LOW_LR]} in the low-learning-rate control" if LOW_LR in largest else ""
    return f" The largest barrier at any spawn step is {largest[MAIN]}{control}."
