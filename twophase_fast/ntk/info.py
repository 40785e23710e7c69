"""What a call reports about itself: plan, precision that ran, seconds per stage, methods. Nothing here computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from twophase_fast._types import Precision
from twophase_fast.ntk.plan import Plan
from twophase_fast.ntk.stopwatch import Stopwatch


@dataclass
class Info:
    """What a call of `entk` did.

    Attributes:
        precision: The precision that ran (`highest` wherever there is no faster unit).
        plan: Tile, groups, methods and predicted peak.
        seconds: Stage -> seconds: `probe`, `capture`, `gram`.
        methods: Parameter name -> method of its Gram block.
        looped: Why cotangents were pulled back one output at a time; empty if several at once.
        watch: Measures `seconds`.
    """

    precision: Precision = "highest"
    plan: Plan | None = None
    seconds: dict[str, float] = field(default_factory=lambda: {"probe": 0.0, "capture": 0.0, "gram": 0.0})
    methods: dict[str, str] = field(default_factory=dict)
    looped: str = ""
    watch: Stopwatch = field(default_factory=lambda: Stopwatch(torch.device("cpu")), repr=False, compare=False)

    def __str__(self) -> str:
        seconds = ", ".join(f"{stage} {value:.3g} s" for stage, value in self.seconds.items())
        looped = [f"one output pulled back at a time: {self.looped}"] if self.looped else []
        plan = [str(self.plan)] if self.plan is not None else []
        return "\n".join([*plan, *looped, f"took {seconds} in precision {self.precision!r}"])

    def include(self, part: Info) -> None:
        """Add the seconds of a part of the same computation; keep its plan."""
        self.plan, self.looped = part.plan, part.looped
        self.methods.update(part.methods)
        for stage, seconds in part.seconds.items():
            self.seconds[stage] += seconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage (on a GPU: once `settle` was called)."""
        with self.watch.timed(stage, self.seconds):
            yield

    def settle(self) -> None:
        """Wait for the GPU's clocks and add what they say."""
        self.watch.settle(self.seconds)
