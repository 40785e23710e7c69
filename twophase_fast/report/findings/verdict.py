"""The shape of a finding and the words its sentence is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from twophase_fast.report.numbers import count, factor, pretty

Outcome: TypeAlias = Literal["seen", "partly", "none", "undecided", "pass", "fail"]

OUTCOME_LABELS: Mapping[Outcome, str] = {
    "seen": "effect seen",
    "partly": "in the control too",
    "none": "no effect seen",
    "undecided": "not decided",
    "pass": "holds",
    "fail": "does not hold",
}


@dataclass(frozen=True)
class Finding:
    """A verdict on one effect.

    Attributes:
        effect: Its name.
        outcome: The verdict.
        sentence: What the data show, in numbers.
        criterion: What decided.
        scope: Where the outcome holds, if not everywhere.
    """

    effect: str
    outcome: Outcome
    sentence: str
    criterion: str
    scope: str = ""

    @property
    def label(self) -> str:
        """The outcome in words, with where it holds if not everywhere."""
        return f"{OUTCOME_LABELS[self.outcome]} {self.scope}".strip()


def fall(first: float, last: float) -> float:
    """Return first/last, with 1 where both are 0 (nothing fell) and inf where only the last one is."""
    if first == last:
        return 1.0
    return first / last if last else float("inf")


def factors(values: Collection[float]) -> str:
    """Return "12× to 46×", or one factor where all print alike."""
    low, high = factor(min(values)), factor(max(values))
    return low if low == high else f"{low} to {high}"


def in_seeds(values: Collection[object]) -> str:
    """Return "in every one of 3 seeds", or "in the one seed run"."""
    return "in the one seed run" if len(values) == 1 else f"in every one of {count(len(values), 'seed')}"


def some_seeds(hits: int, total: int) -> str:
    """Return "in 1 of 3 seeds", "in none of 3 seeds"."""
    return f"in {hits or 'none'} of {count(total, 'seed')}"


def mean(values: Collection[float]) -> str:
    """Return the printed mean."""
    return pretty(sum(values) / len(values))
