"""Control twins: spawned with no perturbation, they must stay bit-identical to their trunk."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from twophase_fast.report.data import Run, Table, rows, where
from twophase_fast.report.findings.verdict import Finding
from twophase_fast.report.numbers import count, pretty

MEASURES = ("dissimilarity", "distance", "disagreement")

CRITERION = (
    "Holds when C, distance and disagreement of every control twin (no perturbation, otherwise treated like any "
    "twin) are exactly 0; anything else is the noise floor of the figures above."
)


def control_maxima(table: Table, columns: Iterable[str] = MEASURES) -> dict[str, float]:
    """Return the largest absolute value of each column over the rows (nan where never evaluated)."""
    return {name: _largest(table[name]) for name in columns if name in table}


def _largest(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else float("nan")


def control_finding(run: Run) -> Finding | None:
    """Return whether all control twins are exactly 0, or None where no twins were run."""
    if not rows(run.table("twins")):
        return None
    controls = where(run.table("twins"), control=1)
    if not rows(controls):
        return Finding("Control twins", "fail", "No control twin was run, so the noise floor is not known.", CRITERION)
    maxima = control_maxima(controls)
    measured = count(rows(controls), "control measurement")
    if not any(maxima.values()):
        return Finding("Control twins", "pass", f"All {measured} are exactly 0: twins differ by ε alone.", CRITERION)
    listed = ", ".join(f"{name} {pretty(value)}" for name, value in maxima.items())
    sentence = f"Control twins are not exactly 0 (largest of {measured}: {listed}): this is the noise floor."
    return Finding("Control twins", "fail", sentence, CRITERION)
