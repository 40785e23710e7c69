"""What the project wants of its speed, memory and error, checked against every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OURS = "twophase_fast"
OURS_HIGH = "twophase_fast high"
WHOLE = "torch.func"
MEMORY = 0.25  # of unchunked torch.func's
ERRORS = 2.0  # times unchunked torch.func's, for "highest"
ERROR_HIGH = 1e-5  # for "high"

PREDICTED_TIME = 1.5  # the plan's seconds are within this factor
PREDICTED_PEAK = 0.2  # and its bytes within this share

Row = dict[str, Any]


def best_peer(rows: list[Row]) -> Row | None:
    """The fastest timed row of a workload that is not ours."""
    timed = [row for row in rows if row["status"] == "timed" and row["peer"] not in (OURS, OURS_HIGH)]
    return min(timed, key=lambda row: row["seconds"], default=None)


def memory_ratio(rows: list[Row], ours: Row) -> float | None:
    """Our peak memory over that of unchunked torch.func on the same workload; None where one is not known."""
    whole = next((row for row in rows if row["peer"] == WHOLE and row["status"] == "timed"), None)
    if whole is None or ours["peak_bytes"] is None or not whole["peak_bytes"]:
        return None
    return ours["peak_bytes"] / whole["peak_bytes"]


@dataclass(frozen=True)
class Claim:
    """Ours at one precision against the best peer on one workload.

    Attributes:
        workload: Name of the workload.
        ours: `OURS` or `OURS_HIGH`.
        faster: Least ratio of the best peer's time to ours.
        stretch: The ratio aimed at beyond that, or None.
    """

    workload: str
    ours: str
    faster: float
    stretch: float | None = None

    def check(self, rows: list[Row]) -> Row:
        """Compare with measured rows; `holds` is None where one side was not timed."""
        mine = [row for row in rows if row["workload"] == self.workload]
        ours = next((row for row in mine if row["peer"] == self.ours and row["status"] == "timed"), None)
        best = best_peer(mine)
        result: Row = {**vars(self), "holds": None}
        if ours is None or best is None:
            return result
        faster, memory = best["seconds"] / ours["seconds"], memory_ratio(mine, ours)
        small = memory is None or memory <= MEMORY  # None: torch.func does not finish
        return {
            **result,
            "best_peer": best["peer"],
            "measured_faster": faster,
            "measured_memory": memory,
            "error": ours["error"],
            "holds": faster >= self.faster and small and self._exact(mine, ours),
        }

    def _exact(self, rows: list[Row], ours: Row) -> bool:
        """Whether the error is within its limit; for "highest" true where torch.func does not finish."""
        if self.ours == OURS_HIGH:
            return ours["error"] <= ERROR_HIGH
        whole = [row["error"] for row in rows if row["peer"] == WHOLE and row["status"] == "timed"]
        return not whole or ours["error"] <= ERRORS * whole[0]


def _claims(workload: str, highest: float, high: float, stretch: float) -> tuple[Claim, Claim]:
    return Claim(workload, OURS, highest), Claim(workload, OURS_HIGH, high, stretch)


CLAIMS = (
    *_claims("mlp-256", 3.5, 6, 8),
    *_claims("cnn-16", 2.5, 2.5, 4),
    *_claims("resnet20-32", 1.6, 2.2, 3.5),
    *_claims("resnet20-128", 1.9, 2.8, 5),
    *_claims("resnet20-128-trace", 2.8, 3.5, 5),
    *_claims("vgg16-8", 7, 8, 12),
    *_claims("vit-32", 1.7, 2.3, 5),
)


def describe(result: Row) -> str:
    """One line about a checked claim."""
    text = f"{result['workload']}: {result['ours']} at least {result['faster']:g}x faster than the best peer"
    if result["holds"] is None:
        return f"not measured   {text}"
    measured = f"{result['measured_faster']:.2f}x {result['best_peer']}"
    if result["stretch"]:
        measured += f", aim {result['stretch']:g}x"
    if result["measured_memory"] is not None:
        measured += f"; {result['measured_memory']:.2f}x the memory of {WHOLE}, at most {MEMORY:g}x"
    return f"{'holds' if result['holds'] else 'DOES NOT HOLD':14} {text}: {measured}; error {result['error']:.0e}"


def prediction(row: Row) -> str | None:
    """One line about what the plan said beforehand of a timed row, or None where nothing was predicted."""
    if "predicted_seconds" not in row:
        return None
    time = row["predicted_seconds"] / row["seconds"]
    text = f"{row['workload']}: predicted {row['predicted_seconds']:.2g} s, {time:.2f}x the measured time"
    holds = 1 / PREDICTED_TIME <= time <= PREDICTED_TIME
    if row["peak_bytes"]:
        peak = row["predicted_peak_bytes"] / row["peak_bytes"]
        text += f"; {row['predicted_peak_bytes'] / 1e6:.0f} MB, {peak:.2f}x the measured peak"
        holds = holds and abs(peak - 1) <= PREDICTED_PEAK
    return f"{'holds' if holds else 'DOES NOT HOLD':14} {text}"
