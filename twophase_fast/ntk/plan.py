"""Deciding, before anything runs, how a kernel is computed inside a memory budget.

Per parameter the cheapest method; the samples of one forward pass (tile); and groups of parameters, in backward
order, whose factors are held for all samples at a time. Every further group costs another pull-back, which stops at
the group's deepest layer. Trace and diagonal kernels treat outputs one by one, so they may pull back a chunk of them
at a time, which costs another forward only. The planner takes what repeats least work.

    peak = kernels + factors of one group (all samples) + max(one tile's graph and cotangents, Jacobian slices)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from twophase_fast._types import InputError
from twophase_fast.ntk.cost import Method
from twophase_fast.ntk.survey import Profile

MIB = 2**20
_TILES = (256, 128, 64, 32, 16, 8, 4, 2, 1)
_CHUNKS = (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
_FORWARD_COST = 1.5  # one forward pass, in pull-backs of one output
_AT_ONCE = 16  # outputs in one batched pull-back
_CALL_COST = 1.0  # fixed cost of one pull-back call, in samples
_SLICE_BYTES = 256 * MIB
_TRANSIENT_BYTES = 512 * MIB
_LIBRARY_BYTES = 24 * MIB  # work areas of BLAS and of the threads


@dataclass(frozen=True)
class Task:
    """The kernel that is wanted.

    Attributes:
        rows: Number of samples N.
        columns: Number of samples M, or None for the symmetric kernel.
        classes: Outputs C that are pulled back (1 for `sum`).
        output: `full`, `trace` or `diagonal`.
        itemsize: Bytes per number.
        kernels: Kernels held at once (one, or one per parameter).
        reserved: Bytes the caller holds beside them.
    """

    rows: int
    columns: int | None
    classes: int
    output: str
    itemsize: int
    kernels: int = 1
    reserved: int = 0

    @property
    def samples(self) -> int:
        """Samples on both sides."""
        return self.rows + (self.columns or 0)

    @property
    def partners(self) -> int:
        """Samples of the second side."""
        return self.rows if self.columns is None else self.columns

    @property
    def pairs(self) -> float:
        """Pairs of samples whose block is computed (half of them for the symmetric kernel)."""
        return self.rows * self.partners if self.columns is not None else self.rows * (self.rows + 1) / 2

    @property
    def kernel_bytes(self) -> int:
        """Bytes of the kernels and of what is reserved."""
        entries = {"full": self.classes**2, "trace": 1, "diagonal": self.classes}[self.output]
        return self.rows * self.partners * entries * self.itemsize * self.kernels + self.reserved


@dataclass(frozen=True)
class Row:
    """One parameter of a plan: its factor's sizes, its method and what that costs in all."""

    name: str
    nodes: tuple[str, ...]
    kind: str
    positions: int
    inputs: int
    outputs: int
    elements: int
    method: Method
    flops: float
    stored_bytes: int
    group: int


@dataclass(frozen=True)
class Plan:
    """How a kernel is computed.

    Attributes:
        task: What is computed.
        tile: Samples per forward pass.
        chunk: Outputs pulled back at a time (all of them for a full kernel).
        at_once: Outputs in one batched pull-back call (1: looped).
        groups: Parameter names held together, in backward order.
        methods: Parameter name -> method.
        slice_bytes: Largest materialised Jacobian slice.
        peak_bytes: Predicted peak of memory over model and inputs, the kernel included.
        rows: One `Row` per parameter.
    """

    task: Task
    tile: int
    chunk: int
    at_once: int
    groups: tuple[tuple[str, ...], ...]
    methods: dict[str, Method]
    slice_bytes: int
    peak_bytes: int
    rows: tuple[Row, ...] = field(repr=False, default=())

    @property
    def chunks(self) -> list[slice]:
        """Slices of the outputs that are pulled back together."""
        return [slice(k, min(k + self.chunk, self.task.classes)) for k in range(0, self.task.classes, self.chunk)]

    @property
    def total_flops(self) -> float:
        """FLOPs of all Gram blocks and builds (forward and pull-back not counted)."""
        return sum(row.flops for row in self.rows)

    def __str__(self) -> str:
        head = f"{'parameter':<40} {'use':<24} {'T':>5} {'d':>6} {'p':>6} {'method':<12} {'GFLOP':>9} {'MiB':>8} group"
        lines = [
            f"{r.name[-40:]:<40} {'+'.join(r.nodes)[:24]:<24} {r.positions:>5} {r.inputs:>6} {r.outputs:>6} "
            f"{r.method:<12} {r.flops / 1e9:>9.3f} {r.stored_bytes / MIB:>8.1f} {r.group:>5}"
            for r in self.rows
        ]
        total = (
            f"{self.total_flops / 1e9:.3f} GFLOP in Gram blocks; tiles of {self.tile} samples, {self.chunk} of "
            f"{self.task.classes} outputs at a time, {len(self.groups)} group(s); "
            f"predicted peak {self.peak_bytes / MIB:.0f} MiB over model and inputs"
        )
        return "\n".join([head, *lines, total])


def make_plan(
    profiles: Sequence[Profile],
    task: Task,
    activation_bytes: int,
    *,
    budget: int,
    tile: int | None = None,
    batched: bool = False,
) -> Plan:
    """Return the plan with the least repeated work that fits.

    Args:
        profiles: Parameters in backward order.
        task: The kernel that is wanted.
        activation_bytes: Bytes a forward keeps, per sample.
        budget: Bytes that may be used over model and inputs.
        tile: Samples per forward pass, or None to choose.
        batched: Whether several outputs can be pulled back in one call.

    Raises:
        InputError: Not even one sample of one parameter fits; the message says the smallest budget that works.
    """
    tiles = [tile] if tile else _tiles(max(task.rows, task.columns or 0))
    sizer = _Sizer(profiles, task, activation_bytes, budget, batched=batched)
    best, least = None, math.inf
    for size in tiles:
        for chunk in _chunks(task):
            groups = sizer.groups(size, chunk)
            if groups is not None and (repeats := sizer.repeats(groups, size, chunk)) < least:
                best, least = sizer.plan(size, chunk, groups), repeats
    if best is None:
        smallest = sizer.smallest(tiles[-1], _chunks(task)[-1])
        raise InputError(
            f"memory_budget={budget} bytes ({budget / MIB:.0f} MiB) is too small for this kernel; the smallest that "
            f"works is {smallest} bytes ({smallest / MIB:.0f} MiB) over model and inputs"
        )
    return best


def _tiles(samples: int) -> list[int]:
    """Return tile sizes to try, largest first."""
    return [samples, *(t for t in _TILES if t < samples)] if samples <= _TILES[0] else list(_TILES)


def _chunks(task: Task) -> list[int]:
    """Return how many outputs may be pulled back at a time, most first; a full kernel needs all of them."""
    if task.output == "full":
        return [task.classes]
    return [task.classes, *(c for c in _CHUNKS if c < task.classes)]


class _Sizer:
    """Predicts bytes for tiles, chunks of outputs and groups of parameters."""

    def __init__(
        self, profiles: Sequence[Profile], task: Task, activation_bytes: int, budget: int, *, batched: bool
    ) -> None:
        self.profiles, self.task, self.activation, self.budget = list(profiles), task, activation_bytes, budget
        self.batched = batched
        self.slice_bytes = min(_SLICE_BYTES, max(budget // 6, 1))

    def stored(self, profile: Profile, chunk: int) -> int:
        """Bytes of one parameter's factor over all samples."""
        return profile.stored_bytes(chunk, self.task.itemsize) * self.task.samples

    def transient(self, group: Sequence[Profile], tile: int, chunk: int) -> int:
        """Bytes of one tile's graph and of the cotangents the group pulls back (twice for those that just arrive)."""
        at_once = self.at_once(chunk)
        flowing = 0.15 * self.activation * at_once
        return int(tile * (self.activation + flowing + (chunk + at_once) * sum(p.transient_bytes for p in group)))

    def at_once(self, chunk: int) -> int:
        """Outputs pulled back in one call."""
        return min(chunk, _AT_ONCE) if self.batched else 1

    def slices(self, group: Sequence[Profile], chunk: int) -> int:
        """Bytes of the largest Jacobian slices; parameters kept materialised need none."""
        sides = 1 if self.task.columns is None else 2
        wanted = [0]
        for p in group:
            jacobian = p.sizes.elements * chunk * self.task.itemsize
            if jacobian > p.stored_bytes(chunk, self.task.itemsize):
                wanted.append(jacobian * self.task.rows)
        return sides * min(self.slice_bytes, max(wanted))

    def peak(self, group: Sequence[Profile], tile: int, chunk: int) -> int:
        """Bytes at the peak while one group is computed."""
        held = self.task.kernel_bytes + sum(self.stored(p, chunk) for p in group) + _LIBRARY_BYTES
        return held + max(self.transient(group, tile, chunk), self.slices(group, chunk))

    def fits(self, group: Sequence[Profile], tile: int, chunk: int) -> bool:
        """Whether a group can be computed inside the budget, with a tile that is not wastefully large."""
        small = tile == 1 or self.transient(group, tile, chunk) <= _TRANSIENT_BYTES
        return small and self.peak(group, tile, chunk) <= self.budget

    def groups(self, tile: int, chunk: int) -> list[list[Profile]] | None:
        """Return the fewest groups of neighbours that fit, or None where one parameter alone does not."""
        groups: list[list[Profile]] = []
        for profile in self.profiles:
            if groups and self.fits([*groups[-1], profile], tile, chunk):
                groups[-1].append(profile)
            elif self.fits([profile], tile, chunk):
                groups.append([profile])
            else:
                return None
        return groups

    def repeats(self, groups: Sequence[Sequence[Profile]], tile: int, chunk: int) -> float:
        """Return forwards and pull-backs per sample, in units of one pull-back of one output; small tiles cost more."""
        chunks = -(-self.task.classes // chunk)
        return (
            len(groups) * (self.task.classes + _FORWARD_COST * chunks) * (1 + _CALL_COST / (tile * self.at_once(chunk)))
        )

    def smallest(self, tile: int, chunk: int) -> int:
        """Return the smallest budget that works, in bytes."""
        held = self.task.kernel_bytes + _LIBRARY_BYTES
        own = (self.stored(p, chunk) + self.transient([p], tile, chunk) for p in self.profiles)
        least = held + max(own)
        while not all(
            _Sizer([p], self.task, self.activation, least, batched=self.batched).fits([p], tile, chunk)
            for p in self.profiles
        ):
            least = int(least * 1.1)
        return least

    def plan(self, tile: int, chunk: int, groups: list[list[Profile]]) -> Plan:
        """Return the finished plan."""
        task = self.task
        rows, methods = [], {}
        for index, group in enumerate(groups):
            for p in group:
                method = p.sizes.choose(task.output, chunk, task.rows, task.partners)
                flops = p.sizes.flops(method, task.output, task.classes, task.rows, task.partners) * task.pairs
                s = p.sizes
                row = (p.name, p.nodes, s.kind, s.positions, s.inputs, s.outputs, s.elements, method)
                rows.append(Row(*row, flops, self.stored(p, chunk), index))
                methods[p.name] = method
        names = tuple(tuple(p.name for p in group) for group in groups)
        peak = max(self.peak(group, tile, chunk) for group in groups)
        return Plan(task, tile, chunk, self.at_once(chunk), names, methods, self.slice_bytes, peak, tuple(rows))
