"""Chaos effect: how far equal-noise twins drift apart falls with the step at which they were spawned."""

from __future__ import annotations

from twophase_fast.report.data import LOW_LR, MAIN, Run, Table
from twophase_fast.report.findings.equal_horizon import Comparison, compare, compare_all
from twophase_fast.report.findings.verdict import Finding, Outcome, factors, fall, in_seeds, mean, some_seeds
from twophase_fast.report.numbers import between, pretty
from twophase_fast.report.spread import spreads

CHAOS_FALL = 5.0
"""C at the latest spawn step must be at most C at the earliest one divided by this, in every seed."""

CRITERION = (
    f"Seen when, at equal horizon, C at the latest spawn step is at most 1/{CHAOS_FALL:g} of C at the earliest one in "
    "every seed, and no seed of the low-learning-rate control shows such a fall. The horizon is the one evaluated "
    "over the widest range of spawn steps, the longest if several are."
)


def falls(comparison: Comparison | None) -> list[float]:
    """Return first/last per seed (an empty list for no comparison)."""
    if comparison is None:
        return []
    return [fall(comparison.first[seed], comparison.last[seed]) for seed in comparison.first]


def chaos_finding(run: Run) -> Finding | None:
    """Return the verdict on the fall of C with the spawn step, or None where no twins were compared."""
    twins = run.table("twins")
    main = compare(twins, MAIN, "dissimilarity")
    if main is None:
        return None
    control = falls(compare(twins, LOW_LR, "dissimilarity", like=main))
    outcome = _outcome(falls(main), control)
    sentence = f"{_opening(outcome, main)} {_control(control)}{_reversed(twins)}{_ceiling(run, main)}"
    everywhere = all(min(falls(entry)) >= CHAOS_FALL for entry in compare_all(twins, MAIN, "dissimilarity"))
    scope = f"at h = {main.horizon}" if outcome == "seen" and not everywhere else ""
    return Finding("Chaos effect", outcome, sentence, CRITERION, scope)


def _outcome(main: list[float], control: list[float]) -> Outcome:
    if not all(value >= CHAOS_FALL for value in main):
        return "none"
    return "partly" if any(value >= CHAOS_FALL for value in control) else "seen"


def _opening(outcome: Outcome, main: Comparison) -> str:
    drops = falls(main)
    first, last = mean(main.first.values()), mean(main.last.values())
    change = (
        f"at equal horizon h = {main.horizon}, C is {first} for twins spawned at step {main.earliest} and {last} for "
        f"twins spawned at step {main.latest} (means over seeds)"
    )
    if outcome == "none":
        hits = sum(value >= CHAOS_FALL for value in drops)
        reached = f"reaching {CHAOS_FALL:g}× {some_seeds(hits, len(drops))}"
        return f"No effect seen: {change}; the ratio is {factors(drops)}, {reached}."
    if outcome == "partly":
        return (
            f"Seen {in_seeds(drops)}, but in the low-learning-rate control too, so not distinguished from it: {change}"
            f", a fall by {factors(drops)}."
        )
    return f"Chaos effect seen {in_seeds(drops)}: {change}, a fall by {factors(drops)}."


def _control(control: list[float]) -> str:
    if not control:
        return "No low-learning-rate control was run, so ordinary slowing down is not excluded."
    return f"In the low-learning-rate control the ratio is {factors(control)} (below 1: C grew)."


def _reversed(twins: Table) -> str:
    """Name the horizons at which some seed has the opposite order: they belong to the result."""
    opposite = [entry for entry in compare_all(twins, MAIN, "dissimilarity") if min(falls(entry)) < 1]
    if not opposite:
        return ""
    listed = ", ".join(f"h = {entry.horizon} {_opposite(falls(entry))}" for entry in opposite)
    return f" The order is the opposite, late twins further apart than early ones, at {listed}."


def _opposite(values: list[float]) -> str:
    return f"({factors(values)}, {some_seeds(sum(value < 1 for value in values), len(values))})"


def _ceiling(run: Run, main: Comparison) -> str:
    """Relate C of the early twins to the distance between independently seeded runs at the same step."""
    ceilings = spreads(run.table("ceilings"), ("variant", "step"), "dissimilarity", repeat="seed_b")
    found = ceilings.get((MAIN, main.earliest + main.horizon))
    if found is None or not found.mean:
        return ""
    ceiling = found.mean
    share = between(
        min(main.first.values()) / ceiling, max(main.first.values()) / ceiling, lambda v: pretty(100 * v, 2)
    )
    return f" At spawn step {main.earliest} C is {share} % of its ceiling ({pretty(ceiling)}, runs of different seeds)."
