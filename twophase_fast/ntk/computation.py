"""Carrying out a plan: for each group of parameters capture every tile, then add Gram blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import NoReturn

import torch
from tqdm import tqdm

from twophase_fast._pages import give_back, recycling, resident_bytes, room
from twophase_fast._types import InputError, Precision, UnsupportedModelError
from twophase_fast.ntk.accumulate import Accumulator
from twophase_fast.ntk.biases import bias_partners
from twophase_fast.ntk.block import Block, pieces, place
from twophase_fast.ntk.calibration import known_rates
from twophase_fast.ntk.capture import capture
from twophase_fast.ntk.checks import Checks, is_asynchronous, require_finite
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.graph import Graph
from twophase_fast.ntk.info import Info
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.lanes import Lanes, OneLane, TwoLanes, driver_of
from twophase_fast.ntk.memory import DEFAULT_SHARE, free_bytes
from twophase_fast.ntk.plan import Group, Plan, Task
from twophase_fast.ntk.planner import make_plan
from twophase_fast.ntk.probe import Structure, probe
from twophase_fast.ntk.program import Program, describe, widest_program
from twophase_fast.ntk.readout import LiftedAccumulator, Readout, find_readout
from twophase_fast.ntk.stopwatch import Stopwatch
from twophase_fast.ntk.survey import Profile, can_batch, survey, widest
from twophase_fast.ops._precision import precision_that_runs

_IRREGULAR_SLICE = 256 * 2**20
_IRREGULAR_TILE = 64
_PAGES = 0.7  # of the predicted bytes over the kernel: pages of large arrays, in use or kept for the next ones
_AFFORDABLE = 64 * 2**20  # bytes of a graph up to which the probe runs all samples,
_SHARE = 1 / 8  # and of a budget
_FULL = 0.85  # of the budget in use: from here on free memory is returned after every tile


class Computation:
    """One kernel: probe both sides, plan, then block by block, chunk by chunk, group by group capture and add.

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
        side: Samples per block of a kernel that the caller takes block by block, at most.
        shares: Devices that each hold an equal part of the kernel (for a plan only).
        precision: Of the contractions; what runs is in `info`.
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
        side: int | None = None,
        shares: int = 1,
        precision: Precision = "highest",
    ) -> None:
        self.function, self.left, self.right = function, left, right
        self.summed, self.output = output == "sum", "trace" if output == "sum" else output
        self.tile, self.budget, self.reserved, self.per_parameter = tile, budget, reserved, per_parameter
        self.side, self.shares = side, shares
        self.info, self._wanted = Info(running_precision(function, precision)), precision
        self.info.watch = Stopwatch(function.device)
        self.readout: Readout | None = None
        self.directions = directions  # [K, C]; None stands for the identity
        self.partners: dict[str, str] = {}  # bias -> weight whose block carries it
        self.structures: list[Structure] = []
        self.ready: Structure | None = None  # whose graph is of all samples, if one capture takes them all
        self._outputs = self._directions_count = 0
        self._resident = resident_bytes()

    @property
    def columns(self) -> Batch:
        """The samples of the second side."""
        return self.left if self.right is None else self.right

    def prepare(self, timer: Callable[[Computation, Sequence[Profile], Program], Plan] | None = None) -> Plan:
        """Probe both sides and return the plan.

        Args:
            timer: Adds predicted seconds to the plan, from the profiles and the program it was made of.

        Raises:
            InputError: Both sides have differing numbers of outputs.
        """
        sides = [self.left] if self.right is None else [self.left, self.right]
        with self.info.timed("probe"):
            self.structures = [probe(self.function, side, affordable=self._affordable()) for side in sides]
            counts = [s.outputs for s in self.structures]
            if len(set(counts)) > 1:
                raise InputError(f"x1 gives {counts[0]} outputs and x2 gives {counts[1]}; they must agree")
            self._choose_directions(counts[0])
            profiles, program = self._make_plan()
            self._keep_graph()
        self.info.settle()
        if timer is not None and program is not None:
            self.info.plan = timer(self, profiles, program)
        with self.info.timed("probe"):
            self.structures = [structure.without_graphs() for structure in self.structures]
            self.give_back()
        return self.info.plan

    def _affordable(self) -> int:
        """Return bytes of a graph that may be kept while the rest is planned; none where no capture could use it."""
        if self.right is not None or self.tile is not None or is_asynchronous(self.function.device):
            return 0
        return int(_AFFORDABLE if self.budget is None else min(_AFFORDABLE, _SHARE * self.budget))

    def _keep_graph(self) -> None:
        """Keep the probe's graph for the capture, if both take all samples."""
        structure, size = self.structures[0], self.left.size
        whole = structure.signature is not None and len(structure.rows) == size == self.info.plan.side
        if self._affordable() and whole and self.info.plan.tile >= size:
            self.ready = structure

    def take_graph(self, batch: Batch) -> Graph | None:
        """Return the graph of a batch and let go of it, if the probe has left it and it is still good.

        Where something was written over what it keeps the model runs again, and torch says what is wrong.
        """
        if self.ready is None or batch.size != self.left.size:
            return None
        structure, self.ready = self.ready, None
        return structure.graph if structure.intact() else None

    def _choose_directions(self, outputs: int) -> None:
        """Choose what is pulled back: every output, their normalised sum, or the features of a wide readout."""
        self._outputs = outputs
        if self.summed:
            self.directions = torch.full((1, outputs), outputs**-0.5, dtype=torch.float64)
        elif self.directions is None and self._one_program():
            self.readout = find_readout(self.function, self.structures[0])
        if self.readout is not None:
            identity = torch.eye(self.readout.matrix.shape[1], dtype=torch.float64)
            self.directions = torch.linalg.qr(self.readout.matrix)[1] if self.output == "trace" else identity
        if self.directions is not None:
            self.directions = self.directions.to(self.function.device)
        self._directions_count = outputs if self.directions is None else len(self.directions)

    def _one_program(self) -> bool:
        """Return whether both sides run the same program (for other memory formats torch takes other views, say)."""
        signature = self.structures[0].signature
        return signature is not None and all(s.signature == signature for s in self.structures)

    def rows_of(self, chunk: slice) -> torch.Tensor:
        """Return the rows of a chunk of directions."""
        if self.directions is not None:
            return self.directions[chunk]
        rows = torch.zeros(chunk.stop - chunk.start, self._outputs, dtype=torch.float64, device=self.function.device)
        rows.diagonal(chunk.start).fill_(1)
        return rows

    def kernels(self, *, progress: bool = False) -> dict[str, torch.Tensor]:
        """Return name -> kernel, under the empty name for the sum over parameters."""
        plan = self.info.plan or self.prepare()
        steps = sum(self._steps(rows, columns) for rows, columns in self.blocks())
        with tqdm(total=steps, disable=not progress, desc="entk", unit="step") as bar:
            if plan.blocks == 1:
                kernels = self.block(*next(self.blocks()), bar=bar)
            else:
                kernels = self._assembled(bar)
        unused = [name for name in self.function.parameters if name not in self.info.methods]
        self.info.methods.update(dict.fromkeys(unused, "unused"))
        if self.per_parameter:
            zero = {
                name: self.accumulator(self.left.size, None if self.right is None else self.right.size).kernel()
                for name in unused
            }
            kernels = {name: (kernels | zero)[name] for name in self.function.parameters}
        self.info.settle()
        return kernels

    def _assembled(self, bar: tqdm) -> dict[str, torch.Tensor]:
        """Return the kernels put together from blocks."""
        whole: dict[str, torch.Tensor] = {}
        pending: list[Checks] = []
        for rows, columns in self.blocks():
            blocks, checks = self.enqueue(rows, columns, bar=bar)
            pending.append(checks)
            for name, block in blocks.items():
                if name not in whole:
                    shape = (self.left.size, self.columns.size, *block.shape[2:])
                    whole[name] = room(shape, block.dtype, block.device).zero_()
                place(whole[name], rows, columns, block, mirror=self.right is None and rows != columns)
        for checks in pending:
            checks.settle()
        return whole

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yield rows and columns of every block of the kernel, every other row of blocks backwards."""
        side, symmetric = self.info.plan.side, self.right is None
        for k, rows in enumerate(pieces(self.left.size, side)):
            others = [c for c in pieces(self.columns.size, side) if not symmetric or c.start >= rows.start]
            yield from ((rows, columns) for columns in (reversed(others) if k % 2 else others))

    def block(self, rows: slice, columns: slice, *, bar: tqdm | None = None) -> dict[str, torch.Tensor]:
        """Return name -> kernel between some of the rows and some of the columns."""
        kernels, checks = self.enqueue(rows, columns, bar=bar)
        checks.settle()
        return kernels

    def enqueue(
        self, rows: slice, columns: slice, *, bar: tqdm | None = None
    ) -> tuple[dict[str, torch.Tensor], Checks]:
        """Return what `block` does, and what must be settled before it may be believed; waits for no GPU.

        On a GPU this may be recorded in a CUDA graph: forward pass, pull-back by rule and Gram blocks, of a prepared
        block of one or two groups (for more the host waits), with inputs and weights that stay where they are, once
        a call inside `ops._triton.tables.as_if_recorded` on the recording stream has compiled everything. Probing,
        planning and settling are no part of it, and a model that asks the GPU for values cannot be recorded.
        """
        with tqdm(disable=True) as silent, self._pages():
            return Block(self, rows, columns, silent if bar is None else bar).enqueue()

    def lanes(self) -> Lanes:
        """Return where captures and Gram blocks of one block run.

        At the same time if there are several groups, on a GPU, unless the user's budget holds no two of them.
        """
        plan, device = self.info.plan, self.function.device
        several = len(plan.groups) * len(plan.chunks) > 1
        if several and self.budget is None and is_asynchronous(device):
            return TwoLanes(driver_of(device))
        return OneLane()

    def _pages(self) -> AbstractContextManager[None]:
        """Return where large arrays have their memory from; a GPU has an allocator for that."""
        if is_asynchronous(self.function.device):
            return nullcontext()
        plan = self.info.plan
        bound = min(plan.array_bytes, int(_PAGES * (plan.peak_bytes - plan.task.kernel_bytes)))
        return recycling(bound, lasting=self.budget is None)

    def give_back(self) -> None:
        """Return free memory to the system where a budget was given; elsewhere the next call is faster with it."""
        if self.budget is not None:
            give_back()

    def keep_to_budget(self) -> None:
        """Return free memory to the system where a budget was given and most of it is in use."""
        if self.budget is None or is_asynchronous(self.function.device):
            return
        resident = resident_bytes()
        if resident is None or resident - (self._resident or 0) > _FULL * self.budget:
            give_back()

    def _steps(self, rows: slice, columns: slice) -> int:
        """Return how many steps of the progress bar a block takes."""
        plan = self.info.plan
        sides = [rows] if self.right is None and rows == columns else [rows, columns]
        tiles = sum(len(pieces(s.stop - s.start, plan.tile)) for s in sides)
        return len(plan.groups) * len(plan.chunks) * (tiles + len(sides))

    def _make_plan(self) -> tuple[list[Profile], Program | None]:
        """Choose the plan and return what it was made of; nothing for a program that depends on the data."""
        task = self._task()
        if any(s.signature is None for s in self.structures):
            largest = max(task.rows, task.partners)
            tile, side = self.tile or min(_IRREGULAR_TILE, largest), min(self.side or largest, largest)
            self.info.looped = "the program depends on the data"
            groups = (Group(tuple(self.function.parameters)),)
            self.info.plan = Plan(task, side, tile, task.classes, 1, groups, {}, _IRREGULAR_SLICE, 0)
            return [], None
        budget = self.budget
        if budget is None:
            budget = int(free_bytes(self.function.device) * DEFAULT_SHARE)
        profiles = widest([survey(self.function, structure, self.readout) for structure in self.structures])
        program = widest_program([describe(structure, self.readout) for structure in self.structures])
        same = self._one_program()
        if not same:  # a cut is a place in one of them
            program = replace(program, cuts=())
        if program.convolves and self._wanted != "highest" and self.function.dtype == torch.float32:
            self.info.precision = "high"  # of convolutions, where the Gram blocks have no other precision
        reasons = (can_batch(structure, self.readout) for structure in self.structures[: 1 if same else None])
        self.info.looped = next(filter(None, reasons), "") if task.classes > 1 else "one output"
        carried = bias_partners(self.structures[0]) if same and not self.per_parameter else {}
        self.info.plan = make_plan(
            profiles,
            task,
            program,
            budget=budget,
            tile=self.tile,
            batched=not self.info.looped,
            side=self.side,
            rates=known_rates(self.function.device),
            carried=carried,
        )
        methods = self.info.plan.methods
        self.partners = {bias: weight for bias, weight in carried.items() if methods.get(weight) == "factored"}
        return profiles, program

    def _task(self) -> Task:
        """Return the kernel that is wanted, over the directions that are pulled back."""
        return Task(
            self.left.size,
            None if self.right is None else self.right.size,
            self._directions_count,
            self.output if self.readout is None or self.output == "trace" else "full",
            self.function.dtype.itemsize,
            kernels=len(self.function.parameters) if self.per_parameter else 1,
            reserved=self.reserved,
            shares=self.shares,
            asynchronous=is_asynchronous(self.function.device),
        )

    def accumulator(self, rows: int, columns: int | None) -> Accumulator | LiftedAccumulator:
        """Return an empty kernel between so many samples; `columns` is None for a symmetric one."""

        def plain(output: str) -> Accumulator:
            function, plan = self.function, self.info.plan
            sizes = (output, rows, columns, plan.task.classes)
            options = {"dtype": function.dtype, "device": function.device, "slice_bytes": plan.slice_bytes}
            return Accumulator(*sizes, **options, precision=self.info.precision)

        if self.readout is None:
            return plain(self.info.plan.task.output)
        return LiftedAccumulator(self.readout, self.directions, self.output, symmetric=columns is None, make=plain)

    def name_culprit(self) -> NoReturn:
        """Say which parameter's Jacobian is not finite, and for which sample.

        Raises:
            UnsupportedModelError: Always; where every Jacobian is finite it says that their products overflow.
        """
        checks = Checks(self.function.device)
        for label, batch in (("x1", self.left), ("x2", self.right)):
            for n in range(0 if batch is None else batch.size):
                piece = batch.take(slice(n, n + 1))
                structure = probe(self.function, piece)
                total = torch.ones(1, structure.outputs, dtype=torch.float64)
                for name, factor in capture(self.function, piece, structure, total).items():
                    require_finite(checks, factor.dense(), name, f" for sample {n} of {label}")
                    checks.settle()
        raise UnsupportedModelError(
            "the kernel has NaN or infinite entries though every Jacobian is finite: their products overflow; rescale "
            "the outputs or use float64"
        )


def running_precision(function: Function, wanted: Precision) -> Precision:
    """Return the precision in which the backend that adds this function's Gram blocks runs."""
    return precision_that_runs(wanted, torch.empty(1, 1, dtype=function.dtype, device=function.device))
