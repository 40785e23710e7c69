"""What is computed and how: the task, groups of parameters, and the plan, which prints itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from twophase_fast.ntk.cost import Method
from twophase_fast.ntk.program import Cut

MIB = 2**20


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
        shares: Devices that each hold an equal part of the kernels.
        asynchronous: Whether it is computed on a GPU, which wants large tiles.
    """

    rows: int
    columns: int | None
    classes: int
    output: str
    itemsize: int
    kernels: int = 1
    reserved: int = 0
    shares: int = 1
    asynchronous: bool = False

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
    def entry_bytes(self) -> int:
        """Bytes of the kernel per pair of samples."""
        return {"full": self.classes**2, "trace": 1, "diagonal": self.classes}[self.output] * self.itemsize

    @property
    def kernel_bytes(self) -> int:
        """Bytes of the kernels and of what is reserved."""
        return self.rows * self.partners * self.entry_bytes * self.kernels // self.shares + self.reserved

    def block(self, side: int, *, streamed: bool) -> Task:
        """Return the task of one block of `side` samples against as many others.

        Where the kernel is not streamed, it is held as a whole beside the block.
        """
        held = self.reserved if streamed else self.kernel_bytes
        return replace(self, rows=min(side, self.rows), columns=min(side, self.partners), reserved=held)

    def blocks(self, side: int) -> float:
        """Return how many blocks of `side` samples there are, in blocks off the diagonal."""
        across, down = math.ceil(self.rows / side), math.ceil(self.partners / side)
        return across * down / (2 if self.columns is None else 1)


@dataclass(frozen=True)
class Group:
    """Parameters whose factors are held together.

    Attributes:
        names: The parameters, in backward order.
        start: Cut where their pull-back starts; None: the outputs.
        keep: Cut whose cotangents are kept for the next group; None: nothing new.
        share: Share of a whole pull-back's work.
    """

    names: tuple[str, ...]
    start: Cut | None = None
    keep: Cut | None = None
    share: float = 1.0


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
    seconds: float = math.nan


@dataclass(frozen=True)
class Plan:
    """How a kernel is computed.

    Attributes:
        task: What is computed.
        side: Samples per block of the kernel (all of them where it is not cut).
        tile: Samples per forward pass.
        chunk: Outputs pulled back at a time (all of them for a full kernel).
        at_once: Outputs in one batched pull-back call (1: looped).
        groups: Parameters held together, in backward order.
        methods: Parameter name -> method.
        slice_bytes: Largest materialised Jacobian slice.
        peak_bytes: Predicted peak of memory over model and inputs, the kernel included.
        rows: One `Row` per parameter.
        seconds: Predicted time, not a number where nothing was timed.
        stages: Predicted seconds per stage: `probe`, `capture`, `gram`.
        profile: What the seconds hold for.
        by_rule: Whether it counts on a pull-back by rule (see `route`).
        array_bytes: Of the peak, what large arrays of the engine's own take.
    """

    task: Task
    side: int
    tile: int
    chunk: int
    at_once: int
    groups: tuple[Group, ...]
    methods: dict[str, Method]
    slice_bytes: int
    peak_bytes: int
    rows: tuple[Row, ...] = field(repr=False, default=())
    seconds: float = math.nan
    stages: dict[str, float] = field(repr=False, default_factory=dict)
    profile: str = "this machine"
    by_rule: bool = False
    array_bytes: int = 0

    @property
    def chunks(self) -> list[slice]:
        """Slices of the outputs that are pulled back together."""
        return [slice(k, min(k + self.chunk, self.task.classes)) for k in range(0, self.task.classes, self.chunk)]

    @property
    def total_flops(self) -> float:
        """FLOPs of all Gram blocks and builds (forward and pull-back not counted)."""
        return sum(row.flops for row in self.rows)

    @property
    def blocks(self) -> int:
        """Number of blocks of the kernel that are computed one after the other."""
        across, down = math.ceil(self.task.rows / self.side), math.ceil(self.task.partners / self.side)
        return across * (across + 1) // 2 if self.task.columns is None else across * down

    def __str__(self) -> str:
        head = (
            f"{'parameter':<40} {'use':<24} {'T':>5} {'d':>6} {'p':>6} {'method':<12} {'GFLOP':>9} {'MiB':>8} "
            f"{'seconds':>8} group"
        )
        lines = [
            f"{r.name[-40:]:<40} {'+'.join(r.nodes)[:24]:<24} {r.positions:>5} {r.inputs:>6} {r.outputs:>6} "
            f"{r.method:<12} {r.flops / 1e9:>9.3f} {r.stored_bytes / MIB:>8.1f} {_seconds(r.seconds):>8} {r.group:>5}"
            for r in self.rows
        ]
        cut = f"{self.blocks} blocks of {self.side} samples; " if self.side < self.task.rows else ""
        total = (
            f"{self.total_flops / 1e9:.3f} GFLOP in Gram blocks; {cut}tiles of {self.tile} samples, {self.chunk} of "
            f"{self.task.classes} outputs at a time, {len(self.groups)} group(s); "
            f"predicted peak {self.peak_bytes / MIB:.0f} MiB over model and inputs"
        )
        if not math.isnan(self.seconds):
            stages = ", ".join(f"{name} {_seconds(value)} s" for name, value in self.stages.items())
            total += f"\npredicted time {_seconds(self.seconds)} s on {self.profile} ({stages})"
        return "\n".join([head, *lines, _LEGEND, total])


_LEGEND = "(T positions, d inputs, p outputs of a use, 0: none; MiB of its factor; GFLOP and seconds of its Gram block)"


def _seconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"
