"""One block of the kernel: for each group of parameters capture every tile, then add Gram blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from twophase_fast.ntk.accumulate import Accumulator
from twophase_fast.ntk.biases import merge_biases
from twophase_fast.ntk.capture import AnyFactor, Section, capture_section
from twophase_fast.ntk.checks import Checks, all_finite, require_finite
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.plan import Group
from twophase_fast.ntk.probe import Structure
from twophase_fast.ntk.readout import LiftedAccumulator, ReadoutFactor
from twophase_fast.ntk.shelf import SMALL_BYTES, WAITING_BYTES, Shelf
from twophase_fast.ntk.survey import method_of
from twophase_fast.rules.factors import Factor

if TYPE_CHECKING:
    from twophase_fast.ntk.computation import Computation

Shelves = dict[str, Shelf]
Finish = Callable[[str, Shelf], None]


class Block:
    """The kernel between some rows and some columns, under the plan of a `Computation`.

    Args:
        computation: Has been prepared.
        rows: Samples of the first side.
        columns: Samples of the second side; the same slice as `rows` gives a symmetric block of a symmetric kernel.
        bar: Counts the steps.
    """

    def __init__(self, computation: Computation, rows: slice, columns: slice, bar: tqdm) -> None:
        self._all, self._plan, self._bar = computation, computation.info.plan, bar
        self._symmetric = computation.right is None and rows == columns
        sides = [(computation.left, rows, computation.structures[0])]
        if not self._symmetric:
            sides.append((computation.columns, columns, computation.structures[-1]))
        self._sides = [_Side(batch, piece, structure) for batch, piece, structure in sides]
        self._checks, self._lanes = Checks(computation.function.device), computation.lanes()

    def enqueue(self) -> tuple[dict[str, torch.Tensor], Checks]:
        """Return name -> kernel, under the empty name for the sum over parameters, and what is required of values.

        These checks must be settled before the kernels may be believed. Nothing here waits for a GPU, but where two
        lanes would hold too many groups' factors.
        """
        with self._lanes.gram():
            alone = None if self._all.per_parameter else self._accumulator()
        own: dict[str, Accumulator | LiftedAccumulator] = {}
        for chunk in self._plan.chunks:
            for position, group in enumerate(self._plan.groups):
                with self._lanes.gram():
                    for name in group.names:
                        own[name] = alone or own.get(name) or self._accumulator()
                self._add_group(position, chunk, own)
        with self._lanes.gram(), self._all.info.timed("gram"):
            kernels = self._finished(alone, own)
        self._lanes.join(kernels.values())
        return kernels, self._checks

    def _finished(
        self, alone: Accumulator | LiftedAccumulator | None, own: dict[str, Accumulator | LiftedAccumulator]
    ) -> dict[str, torch.Tensor]:
        """Return name -> kernel, required to be finite."""
        if alone is None:
            found = [name for name in own if name in self._all.info.methods]
            return {name: require_finite(self._checks, own[name].kernel(), name) for name in found}
        kernel = alone.kernel()
        self._checks.require(all_finite(kernel), self._all.name_culprit)
        return {"": kernel}

    def _accumulator(self) -> Accumulator | LiftedAccumulator:
        sizes = [side.size for side in self._sides]
        return self._all.accumulator(sizes[0], None if self._symmetric else sizes[1])

    def _add_group(self, position: int, chunk: slice, own: dict[str, Accumulator | LiftedAccumulator]) -> None:
        """Capture one group on both sides for some of the outputs and add its Gram blocks."""
        group, info = self._plan.groups[position], self._all.info
        waiting = 0

        def finish(name: str, shelf: Shelf) -> None:
            """Add the block of a parameter whose factor is complete, unless it is small and may wait."""
            nonlocal waiting
            if shelf.bytes <= SMALL_BYTES and waiting + shelf.bytes <= WAITING_BYTES:
                waiting += shelf.bytes
                return
            with info.timed("gram"):
                own[name].select(chunk)
                self._add(own[name], name, [shelf])
                own[name].let_go()

        at_once = finish if self._adds_at_once() else None
        with self._lanes.capture(), info.timed("capture"):
            shelves = [self._capture(side, group, chunk, at_once) for side in self._sides]
            self._all.give_back()
        made = (tensor for side in shelves for shelf in side.values() for tensor in shelf.tensors())
        with self._lanes.gram(made), info.timed("gram"):
            for name in self._all.function.parameters:
                if all(name in side for side in shelves):  # elsewhere its block is zero, or was added
                    own[name].select(chunk)
                    self._add(own[name], name, [shelf.pop(name) for shelf in shelves])
            for name in group.names:
                own[name].flush()
            self._all.give_back()
        self._bar.update(len(self._sides))

    def _adds_at_once(self) -> bool:
        """Return whether a parameter's block is added as soon as its factor is there, while the pull-back goes on.

        That is where one tile holds all samples; on a GPU the blocks of a group wait for each other, in few launches.
        """
        one_tile = self._symmetric and self._sides[0].size <= self._plan.tile
        return one_tile and not self._plan.task.asynchronous

    def _capture(self, side: _Side, group: Group, chunk: slice, finish: Finish | None) -> Shelves:
        """Return parameter name -> factors of every tile of a side, but for those that are finished at once."""
        tiles = pieces(side.size, self._plan.tile)
        lengths = [piece.stop - piece.start for piece in tiles]
        shelves = {name: Shelf(lengths, self._all.info.precision) for name in group.names}
        for index, piece in enumerate(tiles):
            taken = _Taken(shelves, self._plan.methods, self._all.partners, finish)
            taken.put_rest(self._capture_tile(side, index, piece, group, chunk, taken))
            self._all.info.methods |= {bias: f"with {self._all.partners[bias]}" for bias in taken.merged}
            self._all.keep_to_budget()
            self._bar.update(1)
        return {name: shelf for name, shelf in shelves.items() if not shelf.empty}

    def _capture_tile(
        self, side: _Side, index: int, piece: slice, group: Group, chunk: slice, taken: _Taken
    ) -> dict[str, AnyFactor]:
        """Return those of one tile's factors that were not put away, and keep the cotangents at the next cut."""
        waiting = side.waiting.get(index)
        start = None if group.start is None or waiting is None else (group.start, waiting)
        everything, batch = self._all, side.take(piece)
        factors, kept = capture_section(
            everything.function,
            batch,
            side.structure,
            everything.rows_of(chunk),
            Section(group.names, start, group.keep, everything.info.precision, not self._plan.by_rule),
            first=side.first + piece.start == 0,
            readout=everything.readout,
            at_once=self._plan.at_once,
            take=taken,
            checks=self._checks,
            graph=everything.take_graph(batch),
        )
        if group.keep is not None:
            side.waiting[index] = kept
        return factors

    def _add(self, accumulator: Accumulator | LiftedAccumulator, name: str, shelves: list[Shelf]) -> None:
        one, *others = [shelf.take() for shelf in shelves]
        other = others[0] if others else None
        method = self._plan.methods.get(name)
        if method is None:
            method = method_of(one, self._all.output, one.samples if other is None else other.samples)
        self._all.info.methods[name] = method
        accumulator.add(one, other, method)


class _Taken:
    """Puts one tile's factors on their shelves as soon as they are complete.

    Args:
        shelves: One per parameter.
        methods: Parameter -> how its block is added.
        partners: Bias -> weight that carries it; both wait for each other.
        finish: Is handed the shelf of a parameter that was put, where that was the last tile.

    Attributes:
        merged: Biases that went with their weights.
    """

    def __init__(
        self, shelves: Shelves, methods: Mapping[str, str], partners: Mapping[str, str], finish: Finish | None
    ) -> None:
        self._shelves, self._methods, self._finish = shelves, methods, finish
        self._partners = {b: w for b, w in partners.items() if b in shelves and w in shelves}
        self._pairs = {name: pair for pair in self._partners.items() for name in pair}
        self._waiting: dict[str, AnyFactor] = {}
        self._done: set[str] = set()
        self.merged: list[str] = []

    def __call__(self, name: str, factor: Factor) -> bool:
        """Put a factor away, or let it wait for its partner."""
        if name not in self._shelves:
            return False
        self._waiting[name] = factor
        together = self._pairs.get(name, (name,))
        if all(n in self._waiting for n in together):
            self._put_all({n: self._waiting.pop(n) for n in together}, together)
        return True

    def put_rest(self, factors: dict[str, AnyFactor]) -> None:
        """Put away what came at the end (and is taken out); a parameter without a factor has none in this tile."""
        rest = [name for name in self._shelves if name not in self._done]
        factors |= self._waiting
        self._waiting.clear()
        self._put_all(factors, rest)

    def _put_all(self, factors: dict[str, AnyFactor], names: Iterable[str]) -> None:
        self.merged += merge_biases(factors, self._partners, names)
        for name in names:
            self._put(name, factors.pop(name, None))

    def _put(self, name: str, factor: AnyFactor | None) -> None:
        """Put a factor (None: this tile has none) in the smaller form where both will do."""
        materialise = self._methods.get(name) == "materialise" and not isinstance(factor, ReadoutFactor)
        self._shelves[name].put(factor, materialise=materialise)
        self._done.add(name)
        if self._finish is not None:
            del factor  # of which the shelf keeps no more than it needs
            self._finish(name, self._shelves[name])


class _Side:
    """Some samples of one side, and the cotangents their tiles keep at a cut."""

    def __init__(self, batch: Batch, piece: slice, structure: Structure) -> None:
        self._batch, self.first, self.size, self.structure = batch, piece.start, piece.stop - piece.start, structure
        self.waiting: dict[int, torch.Tensor | None] = {}

    def take(self, piece: slice) -> Batch:
        """Return the samples of one tile."""
        return self._batch.take(slice(self.first + piece.start, self.first + piece.stop))


def place(target: Any, rows: slice, columns: slice, block: torch.Tensor, *, mirror: bool) -> None:
    """Put a block [n, m, ...] in its place in a kernel, and its mirror image where the kernel is symmetric."""
    _assign(target, rows, columns, block)
    if mirror:
        _assign(target, columns, rows, block.permute(1, 0, 3, 2) if block.dim() == 4 else block.transpose(0, 1))


def _assign(target: Any, rows: slice, columns: slice, block: torch.Tensor) -> None:
    target[rows, columns] = block.to(target) if isinstance(target, torch.Tensor) else block.cpu().numpy()


def pieces(size: int, step: int) -> list[slice]:
    """Return slices of at most `step` entries that cover `size`, in order."""
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
