"""What the project wants of single ops, against the best formulation in plain torch in the same run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.accuracy import WRONG_HIGH
from twophase_fast.ops._workloads import DEFAULT

HIGHEST, HIGH = "cpu", "cpu high"
FORMULATION = "torch "  # how the names of formulations in plain torch begin

Row = dict[str, Any]


@dataclass(frozen=True)
class OpClaim:
    """Ours against plain torch on one op at one size.

    Attributes:
        label: Of the row, as in `_workloads`.
        ours: `HIGHEST` or `HIGH`; the latter counts only where AMX ran.
        faster: Least ratio of plain torch's time to ours.
    """

    label: str
    ours: str
    faster: float

    def check(self, rows: list[Row]) -> Row:
        """Compare with measured rows; `holds` is None where one side was not timed, or "high" ran without AMX."""
        mine = [row for row in rows if label(row) == self.label and row["status"] == "timed"]
        ours = next((row for row in mine if row["backend"] == self.ours), None)
        rivals = [row for row in mine if row["backend"].startswith(FORMULATION)]
        result: Row = {**vars(self), "holds": None}
        if ours is None or not rivals or (self.ours == HIGH and ours.get("matrix_unit") != "amx"):
            return result
        best = min(rivals, key=lambda row: row["seconds"])
        faster = best["seconds"] / ours["seconds"]
        exact = self.ours == HIGHEST or ours["error"] <= WRONG_HIGH
        return {**result, "best_rival": best["backend"], "measured_faster": faster, "error": ours["error"],
                "holds": exact and faster >= self.faster}  # fmt: skip


def label(row: Row) -> str:
    """Return the label of a measured row, such as `gram-n640-p4096`."""
    return "-".join([row["op"], *(f"{name}{size}" for name, size in row["sizes"].items() if size)])


def _claims() -> Iterator[OpClaim]:
    for work in DEFAULT:
        sizes = work.sizes
        if work.op == "gram" and not sizes["m"]:
            if sizes["n"] >= 640:
                yield OpClaim(work.label, HIGHEST, 1.5)
            if sizes["n"] >= 1280 or sizes["n"] == 320:
                yield OpClaim(work.label, HIGH, 1.8 if sizes["n"] == 320 else 3.0)
        if work.op == "factored_gram" and sizes["n"] == 64:
            yield OpClaim(work.label, HIGH, 3.0)


OP_CLAIMS = tuple(_claims())


def describe(result: Row) -> str:
    """One line about a checked claim."""
    text = f"{result['label']}: {result['ours']} at least {result['faster']:g}x faster than plain torch"
    if result["holds"] is None:
        return f"not measured   {text}"
    measured = f"{result['measured_faster']:.2f}x {result['best_rival']}; error {result['error']:.0e}"
    return f"{'holds' if result['holds'] else 'DOES NOT HOLD':14} {text}: {measured}"
