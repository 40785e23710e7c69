"""Deciding, before anything runs, how a kernel is computed inside a memory budget.

Per parameter the cheapest method; the samples of one forward pass (tile) and the outputs of one pull-back call; and
groups of parameters, in backward order, whose factors are held for all samples at a time. A further group costs another
forward pass; its pull-back goes on from the cotangents kept at a cut (`program`). Trace and diagonal kernels treat
outputs one by one, so they may pull back a chunk of them at a time. Where not even one parameter's factors fit, the
kernel is cut into blocks of samples, whose factors are computed again for every partner. The planner takes what is
predicted to take least time, or one with a lower peak that takes hardly longer. Bytes and seconds are in `sizer`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twophase_fast._types import InputError
from twophase_fast.ntk.calibration import DEFAULT, Rates
from twophase_fast.ntk.plan import MIB, Plan, Task
from twophase_fast.ntk.program import Program
from twophase_fast.ntk.sizer import Sizer
from twophase_fast.ntk.survey import Profile, with_rows

_LONG = 0.01  # seconds from which on looking for a lower peak pays
_PATIENCE = 0.02  # share of the time that may be lost for a lower peak
_SHARES = (0.25, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)  # of the fastest plan's peak, tried from the lowest on


def make_plan(
    profiles: Sequence[Profile],
    task: Task,
    program: Program,
    *,
    budget: int,
    tile: int | None = None,
    batched: bool = False,
    side: int | None = None,
    rates: Rates = DEFAULT,
    carried: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan with the least predicted time that fits.

    Args:
        profiles: Parameters in backward order.
        task: The kernel that is wanted.
        program: What a forward pass and its pull-back keep and cost.
        budget: Bytes that may be used over model and inputs.
        tile: Samples per forward pass, or None to choose.
        batched: Whether several outputs can be pulled back in one call.
        side: Samples per block of a kernel that is streamed, at most; None: the kernel is held in memory.
        rates: Throughputs of the ops, which decide between methods.
        carried: Bias -> weight that carries it at no cost where its block is factored.

    Raises:
        InputError: Not even one sample of one parameter fits; the message says the smallest budget that works.
    """
    options: dict[str, Any] = {"batched": batched, "rates": rates, "carried": carried or {}}
    largest = max(task.rows, task.partners)
    search = _Search(profiles, task, program, min(side or largest, largest), side is not None, tile, options)
    best, least = search.fastest(budget)
    if best is not None:
        return with_rows(search.frugal(best, least), profiles, rates)
    part = task if largest == 1 else task.block(1, streamed=side is not None)
    smallest = Sizer(profiles, part, program, budget, **options).smallest(tile)
    raise InputError(
        f"memory_budget={budget} bytes ({budget / MIB:.0f} MiB) is too small for this kernel; the smallest that "
        f"works is {smallest} bytes ({smallest / MIB:.0f} MiB) over model and inputs"
    )


@dataclass(frozen=True)
class _Search:
    """The plans of one task under various budgets.

    Attributes:
        profiles: Parameters in backward order.
        task: The kernel that is wanted.
        program: What a forward pass and its pull-back keep and cost.
        side: Samples per block, at most.
        streamed: Whether the kernel goes elsewhere block by block.
        tile: Samples per forward pass, or None to choose.
        options: Further arguments of `Sizer`.
    """

    profiles: Sequence[Profile]
    task: Task
    program: Program
    side: int
    streamed: bool
    tile: int | None
    options: dict[str, Any]

    def fastest(self, budget: int) -> tuple[Plan | None, float]:
        """Return the plan with the least predicted time that fits, and that time (without its Gram blocks)."""
        best, least, largest = None, math.inf, max(self.task.rows, self.task.partners)
        for size in _sides(self.side):
            part = self.task if size >= largest else self.task.block(size, streamed=self.streamed)
            sizer = Sizer(self.profiles, part, self.program, budget, **self.options)
            blocks = 1.0 if size >= largest else self.task.blocks(size)
            found, seconds = sizer.best(self.tile, limit=least / blocks)
            seconds *= blocks
            if found is not None and seconds < least:
                best, least = replace(found, task=self.task, side=size), seconds
            if best is not None and seconds > least:
                break
        return best, least

    def frugal(self, best: Plan, least: float) -> Plan:
        """Return the plan with the lowest peak among those like the fastest one that take hardly longer.

        A GPU keeps the fastest: its memory serves nobody else meanwhile, and smaller tiles leave it idle.
        """
        total = least + self._gram_seconds(best)
        if self.task.asynchronous or total < _LONG or best.side < max(self.task.rows, self.task.partners):
            return best
        whole = Sizer(self.profiles, self.task, self.program, best.peak_bytes, **self.options)
        for share in _SHARES:
            sizer = whole.with_budget(int(share * best.peak_bytes))
            found, _ = sizer.best(self.tile, like=best, limit=least + _PATIENCE * total)
            if found is not None:
                return found
        return best

    def _gram_seconds(self, plan: Plan) -> float:
        task, rates = self.task, self.options["rates"]
        samples = min(plan.side, task.rows), min(plan.side, task.partners)
        sizes = (task.output, task.classes, *samples, rates)
        return task.pairs * sum(min(p.sizes.seconds(m, *sizes) for m in p.sizes.methods) for p in self.profiles)


def _sides(largest: int) -> list[int]:
    """Return sizes of sample blocks to try: all samples, then halves of it."""
    sides = [largest]
    while sides[-1] > 1:
        sides.append(-(-sides[-1] // 2))
    return sides
