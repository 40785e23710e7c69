"""Cone effect: the kernel keeps moving, ever more slowly and inside an ever narrower cone."""

from __future__ import annotations

from dataclasses import dataclass

from twophase_fast.report.cone_series import drift, half_angles, headline_spacing, per_distance, primary_output
from twophase_fast.report.data import LOW_LR, MAIN, Run
from twophase_fast.report.findings.verdict import Finding, Outcome, factors, fall, in_seeds, some_seeds
from twophase_fast.report.numbers import between, pretty
from twophase_fast.report.spread import Spread

DRIFT_FALL = 2.0
"""S(t, t+dt) at the first probe step must be at least this many times that at the last one."""

ANGLE_FALL = 1.5
"""The half-angle at the first probe step must be at least this many times that at the last one."""

CRITERION = (
    f"Seen when, from the first probe step to the last, S(t, t+dt) falls at least {DRIFT_FALL:g}× and the half-angle "
    f"over the fixed window at least {ANGLE_FALL:g}×, each in every seed, while the kernel still moves (S > 0), and "
    "not each in every seed of the low-learning-rate control. dt is the one stored over the widest range of t, the "
    "smallest if several are."
)


@dataclass(frozen=True)
class Fall:
    """First and last value over probe steps, per seed."""

    first_step: int
    last_step: int
    first: Spread
    last: Spread

    @property
    def factors(self) -> list[float]:
        """first/last of every seed that has both."""
        last = self.last.by_seed
        return [fall(value, last[seed]) for seed, value in self.first.by_seed.items() if seed in last]


def cone_finding(run: Run) -> Finding | None:
    """Return the verdict on kernel drift and half-angle, or None where fewer than two probe steps were stored."""
    spacing = headline_spacing(run)
    moved = None if spacing is None else _fall(drift(run, MAIN, primary_output(run), spacing))
    if spacing is None or moved is None:
        return None
    angle = _fall(half_angles(run, MAIN, primary_output(run)))
    outcome = _outcome(moved, angle, _control_falls(run, spacing))
    sentence = _drift_words(outcome, moved, spacing) + _angle_words(angle) + _ratio_words(run, spacing)
    sentence += _control_words(run, spacing)
    return Finding("Cone effect", outcome, sentence, CRITERION)


def _fall(series: dict[int, Spread]) -> Fall | None:
    steps = sorted(series)
    if len(steps) < 2:
        return None
    return Fall(steps[0], steps[-1], series[steps[0]], series[steps[-1]])


def _control_falls(run: Run, spacing: int) -> bool:
    """Return whether the low-learning-rate control meets the same two conditions in every seed."""
    moved = _fall(drift(run, LOW_LR, primary_output(run), spacing))
    return moved is not None and _narrows(moved, _fall(half_angles(run, LOW_LR, primary_output(run))))


def _narrows(moved: Fall, angle: Fall | None) -> bool:
    narrowed = angle is not None and min(angle.factors, default=0.0) >= ANGLE_FALL
    return narrowed and min(moved.factors, default=0.0) >= DRIFT_FALL


def _outcome(moved: Fall, angle: Fall | None, control_falls: bool) -> Outcome:
    if angle is None:
        return "undecided"
    if not _narrows(moved, angle) or not moved.last.low > 0:
        return "none"
    return "partly" if control_falls else "seen"


def _drift_words(outcome: Outcome, moved: Fall, spacing: int) -> str:
    values = moved.factors
    change = (
        f"S(t, t+{spacing}) goes from {pretty(moved.first.mean)} at t = {moved.first_step} to "
        f"{pretty(moved.last.mean)} at t = {moved.last_step} (means over seeds), a ratio of {factors(values)}"
    )
    if outcome == "seen":
        return f"Cone effect seen {in_seeds(values)}: {change}."
    if outcome == "partly":
        too = "but in the low-learning-rate control too, so not distinguished from it"
        return f"Seen {in_seeds(values)}, {too}: {change}."
    if outcome == "undecided":
        return f"Not decided: {change}."
    hits = sum(value >= DRIFT_FALL for value in values)
    return f"No effect seen: {change}, reaching {DRIFT_FALL:g}× {some_seeds(hits, len(values))}."


def _angle_words(angle: Fall | None) -> str:
    if angle is None:
        return " The half-angle over a fixed window was not evaluated at two probe steps."
    return (
        f" The half-angle over the window goes from {between(angle.first.low, angle.first.high)}° at t = "
        f"{angle.first_step} to {between(angle.last.low, angle.last.high)}° at t = {angle.last_step} (over seeds)."
    )


def _ratio_words(run: Run, spacing: int) -> str:
    """State how S per relative parameter distance changes: a fall beyond that of the steps themselves."""
    ratio = _fall(per_distance(run, MAIN, primary_output(run), spacing))
    if ratio is None:
        return ""
    return (
        f" For S per relative parameter distance the ratio is {factors(ratio.factors)}{_control_ratio(run, spacing)}."
    )


def _control_ratio(run: Run, spacing: int) -> str:
    control = _fall(per_distance(run, LOW_LR, primary_output(run), spacing))
    return "" if control is None else f" ({factors(control.factors)} in the control)"


def _control_words(run: Run, spacing: int) -> str:
    moved = _fall(drift(run, LOW_LR, primary_output(run), spacing))
    if moved is None:
        return " No low-learning-rate control was run."
    return f" In the low-learning-rate control the ratio for S is {factors(moved.factors)}" + _control_angle(run)


def _control_angle(run: Run) -> str:
    angle = _fall(half_angles(run, LOW_LR, primary_output(run)))
    return "." if angle is None else f" and for the half-angle {factors(angle.factors)}."
