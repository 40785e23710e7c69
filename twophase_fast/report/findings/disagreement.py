"""Disagreement rate: the share of test points on which trunk and twin predict different classes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from twophase_fast.report.data import LOW_LR, MAIN, Run, setting
from twophase_fast.report.findings.equal_horizon import Comparison, compare
from twophase_fast.report.findings.verdict import Finding, Outcome, in_seeds, mean, some_seeds
from twophase_fast.report.numbers import between, pretty

STANDARD_ERRORS = 2.0
"""A drop counts from this many binomial standard errors of the difference."""

DEFAULT_TEST_SIZE = 1000

CRITERION = (
    f"Seen when, at equal horizon, the rate at the earliest spawn step exceeds that at the latest one by more than "
    f"{STANDARD_ERRORS:g} binomial standard errors of the difference in every seed, and the low-learning-rate control "
    "shows no such drop in any."
)


def disagreement_finding(run: Run) -> Finding | None:
    """Return the verdict on the drop of the disagreement rate, or None where it was not evaluated."""
    twins = run.table("twins")
    main = compare(twins, MAIN, "disagreement")
    if main is None:
        return None
    control = compare(twins, LOW_LR, "disagreement", like=main)
    size = int(setting(run.config, "test_size") or DEFAULT_TEST_SIZE)
    hits = _drops(main, size)
    control_hits = _drops(control, size) if control else 0
    outcome: Outcome = "none" if hits < len(main.first) else ("partly" if control_hits else "seen")
    return Finding("Disagreement", outcome, _sentence(outcome, main, hits) + _control(control), CRITERION)


def _drops(comparison: Comparison, size: int) -> int:
    """Return how many seeds drop by more than the sampling error of `size` test points."""
    return sum(
        comparison.first[seed] - comparison.last[seed]
        > STANDARD_ERRORS * _standard_error(comparison.first[seed], comparison.last[seed], size)
        for seed in comparison.first
    )


def _standard_error(first: float, last: float, size: int) -> float:
    return math.sqrt((first * (1 - first) + last * (1 - last)) / size)


def _sentence(outcome: Outcome, main: Comparison, hits: int) -> str:
    change = (
        f"at h = {main.horizon} trunk and twin disagree on {_percent(main.first)} of the test points for spawn step "
        f"{main.earliest} and on {_percent(main.last)} for step {main.latest}"
    )
    if outcome == "seen":
        return f"A drop with the spawn step is seen {in_seeds(main.first)}: {change}."
    if outcome == "partly":
        too = "but in the low-learning-rate control too, so not distinguished from it"
        return f"Seen {in_seeds(main.first)}, {too}: {change}."
    return f"No effect seen: {change}; a drop beyond the sampling error {some_seeds(hits, len(main.first))}."


def _percent(values: Mapping[int, float]) -> str:
    return between(100 * min(values.values()), 100 * max(values.values()), lambda v: pretty(v, 2)) + " %"


def _control(control: Comparison | None) -> str:
    if control is None:
        return " No low-learning-rate control was run."
    return f" Low-learning-rate control: {mean(control.first.values())} and {mean(control.last.values())} (mean rates)."
