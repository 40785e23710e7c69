"""What the project claims about its speed, checked against every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Claim:
    """Ours against a peer on one workload.

    Attributes:
        workload: Name of the workload.
        peer: Whom.
        faster: Least ratio of their time to ours.
        memory: Largest ratio of our peak memory to theirs, or None.
    """

    workload: str
    peer: str
    faster: float
    memory: float | None = None

    def check(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Compare with measured rows; `holds` is None where one side was not timed."""
        by_peer = {row["peer"]: row for row in rows if row["workload"] == self.workload and row["status"] == "timed"}
        ours, theirs = by_peer.get("twophase_fast"), by_peer.get(self.peer)
        result: dict[str, Any] = {**vars(self), "holds": None}
        if ours is None or theirs is None:
            return result
        result["measured_faster"] = theirs["seconds"] / ours["seconds"]
        holds = result["measured_faster"] >= self.faster
        if self.memory is not None and ours["peak_bytes"] is not None and theirs["peak_bytes"]:
            result["measured_memory"] = ours["peak_bytes"] / theirs["peak_bytes"]
            holds = holds and result["measured_memory"] <= self.memory
        return {**result, "holds": holds}


CLAIMS = (
    Claim("vgg16-8", "torch.func", faster=4.0, memory=0.5),
    Claim("mlp-64", "torchjd", faster=50.0),
)


def describe(result: dict[str, Any]) -> str:
    """One line about a checked claim."""
    text = f"{result['workload']}: at least {result['faster']:g}x faster than {result['peer']}"
    if result["memory"] is not None:
        text += f" in at most {result['memory']:g}x its memory"
    if result["holds"] is None:
        return f"not measured   {text}"
    measured = f"{result['measured_faster']:.1f}x"
    if "measured_memory" in result:
        measured += f", {result['measured_memory']:.2f}x memory"
    return f"{'holds' if result['holds'] else 'DOES NOT HOLD':14} {text} (measured: {measured})"
