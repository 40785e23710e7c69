"""Carrying out a plan: for each group of parameters capture every tile, then add Gram blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from twophase_fast._types import InputError, Precision, UnsupportedModelError
from twophase_fast.ntk.accumulate import Accumulator
from twophase_fast.ntk.biases import bias_partners, merge_biases
from twophase_fast.ntk.capture import capture
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.memory import DEFAULT_SHARE, free_bytes
from twophase_fast.ntk.plan import Plan, Task, make_plan
from twophase_fast.ntk.probe import Structure, probe
from twophase_fast.ntk.readout import LiftedAccumulator, Readout, ReadoutFactor, find_readout
from twophase_fast.ntk.shelf import Shelf
from twophase_fast.ntk.survey import can_batch, method_of, survey, widest
from twophase_fast.rules.factors import Factor, compact

_IRREGULAR_SLICE = 256 * 2**20
_IRREGULAR_TILE = 64

Shelves = dict[str, Shelf]


@dataclass
class Info:
    """What a call of `entk` did.

    Attributes:
        precision: The precision that ran (`highest` wherever there is no faster unit).
        plan: Tile, groups, methods and predicted peak.
        seconds: Stage -> seconds: `probe`, `capture`, `gram`.
        methods: Parameter name -> method of its Gram block.
        looped: Why cotangents were pulled back one output at a time; empty if several at once.
    """

    precision: Precision = "highest"
    plan: Plan | None = None
    seconds: dict[str, float] = field(default_factory=lambda: {"probe": 0.0, "capture": 0.0, "gram": 0.0})
    methods: dict[str, str] = field(default_factory=dict)
    looped: str = ""

    def include(self, part: Info) -> None:
        """Add the seconds of a part of the same computation; keep its plan."""
        self.plan, self.looped = part.plan, part.looped
        self.methods.update(part.methods)
        for stage, seconds in part.seconds.items():
            self.seconds[stage] += seconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started


class Computation:
    """One kernel: probe both sides, plan, capture factors group by group, add Gram blocks.

    Args:
        function: Model, output function and selected parameters.
        left: The N samples.
        right: The M samples, or None for the symmetric kernel.
        output: `full`, `trace`, `diagonal` or `sum`.
        tile: Samples per forward pass, or None to choose.
        budget: Bytes that may be used, or None for a share of what is free.
        per_parameter: Keep one kernel per parameter.
        directions: [K, C]: take the kernel of the K outputs sum_c directions[k, c] f_c instead of the C outputs.
        reserved: Bytes the caller holds meanwhile, out of the same budget.
    """

    def __init__(
        self,
        function: Function,
        left: Batch,
        right: Batch | None,
        output: str,
        tile: int | None,
        budget: int | None,
        *,
        per_parameter: bool = False,
        directions: torch.Tensor | None = None,
        reserved: int = 0,
    ) -> None:
        self.function, self.left, self.right = function, left, right
        self.summed, self.output = output == "sum", "trace" if output == "sum" else output
        self.tile, self.budget, self.reserved, self.per_parameter = tile, budget, reserved, per_parameter
        self.info = Info()
        self._structures: list[Structure] = []
        self._matrix = directions  # [K, C]; None stands for the identity
        self._readout: Readout | None = None
        self._outputs = self._directions_count = 0
        self._partners: dict[str, str] = {}  # bias -> weight whose block carries it

    def prepare(self) -> Plan:
        """Probe both sides and return the plan.

        Raises:
            InputError: Both sides have differing numbers of outputs.
        """
        sides = [self.left] if self.right is None else [self.left, self.right]
        with self.info.timed("probe"):
            self._structures = [probe(self.function, side) for side in sides]
            counts = [s.outputs for s in self._structures]
            if len(set(counts)) > 1:
                raise InputError(f"x1 gives {counts[0]} outputs and x2 gives {counts[1]}; they must agree")
            self._choose_directions(counts[0])
            self.info.plan = self._plan(self._directions_count)
        return self.info.plan

    def _choose_directions(self, outputs: int) -> None:
        """Choose what is pulled back: every output, their normalised sum, or the features of a wide readout."""
        self._outputs = outputs
        if self.summed:
            self._matrix = torch.full((1, outputs), outputs**-0.5, dtype=torch.float64)
        elif self._matrix is None and all(s.signature is not None for s in self._structures):
            self._readout = find_readout(self.function, self._structures[0])
        if self._readout is not None:
            identity = torch.eye(self._readout.matrix.shape[1], dtype=torch.float64)
            self._matrix = torch.linalg.qr(self._readout.matrix)[1] if self.output == "trace" else identity
        self._directions_count = outputs if self._matrix is None else len(self._matrix)

    def _directions(self, chunk: slice) -> torch.Tensor:
        """Return the rows of a chunk of directions."""
        if self._matrix is not None:
            return self._matrix[chunk]
        rows = torch.zeros(chunk.stop - chunk.start, self._outputs, dtype=torch.float64)
        rows[torch.arange(len(rows)), torch.arange(chunk.start, chunk.stop)] = 1
        return rows

    def kernels(self, *, progress: bool = False) -> dict[str, torch.Tensor]:
        """Return name -> kernel, under the empty name for the sum over parameters."""
        plan = self.info.plan or self.prepare()
        total = None if self.per_parameter else self._accumulator()
        kernels: dict[str, torch.Tensor] = {}
        sides = 1 if self.right is None else 2
        tiles = sum(len(self._tiles(side)) for side in (self.left, self.right) if side is not None)
        steps = len(plan.groups) * len(plan.chunks) * (tiles + sides)
        with tqdm(total=steps, disable=not progress, desc="entk", unit="step") as bar:
            for group in plan.groups:
                own = {name: total or self._accumulator() for name in group}
                for chunk in plan.chunks:
                    self._add_group(group, chunk, own, bar)
                if self.per_parameter:
                    found = [name for name in group if name in self.info.methods]
                    kernels.update({name: _check_finite(own[name].kernel(), name) for name in found})
        if total is not None:
            with self.info.timed("gram"):
                kernels[""] = total.kernel()
            if not bool(torch.isfinite(kernels[""]).all()):
                self._name_culprit()
        unused = [name for name in self.function.parameters if name not in self.info.methods]
        self.info.methods.update(dict.fromkeys(unused, "unused"))
        if self.per_parameter:
            zero = {name: self._accumulator().kernel() for name in unused}
            kernels = {name: (kernels | zero)[name] for name in self.function.parameters}
        return kernels

    def _add_group(
        self, group: tuple[str, ...], chunk: slice, own: dict[str, Accumulator | LiftedAccumulator], bar: tqdm
    ) -> None:
        """Capture one group on both sides for some of the outputs and add its Gram blocks."""
        with self.info.timed("capture"):
            left = self._capture(self.left, self._structures[0], group, chunk, bar)
            right = None if self.right is None else self._capture(self.right, self._structures[1], group, chunk, bar)
        with self.info.timed("gram"):
            for name in self._captured(left, right):
                own[name].select(chunk)
                self._add(own[name], name, left.pop(name), None if right is None else right.pop(name))
        bar.update(1 if self.right is None else 2)

    def _captured(self, left: Shelves, right: Shelves | None) -> list[str]:
        """Return parameters present on both sides (elsewhere their block is zero), in the model's order."""
        return [n for n in self.function.parameters if n in left and (right is None or n in right)]

    def _capture(self, batch: Batch, structure: Structure, group: tuple[str, ...], chunk: slice, bar: tqdm) -> Shelves:
        """Return parameter name -> factors of every tile of `batch`."""
        lengths = [piece.stop - piece.start for piece in self._tiles(batch)]
        shelves = {name: Shelf(lengths) for name in group}
        for piece in self._tiles(batch):
            tile = batch.take(piece)
            factors = capture(
                self.function,
                tile,
                structure,
                self._directions(chunk),
                names=group,
                first=piece.start == 0,
                readout=self._readout,
                at_once=self.info.plan.at_once,
            )
            for bias in merge_biases(factors, self._partners, group):
                self.info.methods[bias] = f"with {self._partners[bias]}"
            for name in group:
                factor = factors.pop(name, None)
                shelves[name].put(factor if factor is None else self._kept(name, factor))
            bar.update(1)
        return {name: shelf for name, shelf in shelves.items() if not shelf.empty}

    def _kept(self, name: str, factor: Factor) -> Factor:
        """Return the form of a factor that is kept until its Gram block: the smaller one where both will do."""
        materialised = self.info.plan.methods.get(name) == "materialise"
        return compact(factor) if materialised and not isinstance(factor, ReadoutFactor) else factor

    def _add(self, accumulator: Accumulator | LiftedAccumulator, name: str, left: Shelf, right: Shelf | None) -> None:
        one = left.take()
        other = None if right is None else right.take()
        method = self.info.plan.methods.get(name)
        if method is None:
            method = method_of(one, self.output, one.samples if other is None else other.samples)
        self.info.methods[name] = method
        accumulator.add(one, other, method)

    def _tiles(self, batch: Batch) -> list[slice]:
        size = self.info.plan.tile
        return [slice(start, min(start + size, batch.size)) for start in range(0, batch.size, size)]

    def _plan(self, classes: int) -> Plan:
        task = Task(
            self.left.size,
            None if self.right is None else self.right.size,
            classes,
            self.output if self._readout is None or self.output == "trace" else "full",
            self.function.dtype.itemsize,
            kernels=len(self.function.parameters) if self.per_parameter else 1,
            reserved=self.reserved,
        )
        if any(s.signature is None for s in self._structures):
            tile = self.tile or min(_IRREGULAR_TILE, max(task.rows, task.columns or 0))
            self.info.looped = "the program depends on the data"
            return Plan(task, tile, classes, 1, (tuple(self.function.parameters),), {}, _IRREGULAR_SLICE, 0)
        budget = self.budget
        if budget is None:
            budget = int(free_bytes(self.function.device) * DEFAULT_SHARE)
        surveys = [survey(self.function, structure, self._readout) for structure in self._structures]
        activation = max(s.activation_bytes for s in self._structures)
        self.info.looped = can_batch(self._structures[0], self._readout) if classes > 1 else "one output"
        batched = not self.info.looped
        plan = make_plan(widest(surveys), task, activation, budget=budget, tile=self.tile, batched=batched)
        if not self.per_parameter:
            self._partners = bias_partners(self._structures[0], plan.methods)
        return plan

    def _accumulator(self) -> Accumulator | LiftedAccumulator:
        task = self.info.plan.task
        if self._readout is None:
            return self._plain_accumulator(task.output)
        symmetric = task.columns is None
        return LiftedAccumulator(
            self._readout, self._matrix, self.output, symmetric=symmetric, make=self._plain_accumulator
        )

    def _plain_accumulator(self, output: str) -> Accumulator:
        task = self.info.plan.task
        return Accumulator(
            output,
            task.rows,
            task.columns,
            task.classes,
            dtype=self.function.dtype,
            device=self.function.device,
            slice_bytes=self.info.plan.slice_bytes,
        )

    def _name_culprit(self) -> None:
        """Say which parameter's Jacobian is not finite, and for which sample.

        Raises:
            UnsupportedModelError: Always; where every Jacobian is finite it says that their products overflow.
        """
        for label, batch in (("x1", self.left), ("x2", self.right)):
            for n in range(0 if batch is None else batch.size):
                piece = batch.take(slice(n, n + 1))
                structure = probe(self.function, piece)
                total = torch.ones(1, structure.outputs, dtype=torch.float64)
                for name, factor in capture(self.function, piece, structure, total).items():
                    _check_finite(factor.dense(), name, f" for sample {n} of {label}")
        raise UnsupportedModelError(
            "the kernel has NaN or infinite entries though every Jacobian is finite: their products overflow; rescale "
            "the outputs or use float64"
        )


def _check_finite(tensor: torch.Tensor, name: str, where: str = "") -> torch.Tensor:
    """Return `tensor`, or refuse it.

    Raises:
        UnsupportedModelError: It holds NaN or infinite entries.
    """
    if not bool(torch.isfinite(tensor).all()):
        raise UnsupportedModelError(
            f"the Jacobian of {name!r} has NaN or infinite entries{where}, so its kernel is not defined; look for a "
            "square root or division at zero on the way to the output"
        )
    return tensor
