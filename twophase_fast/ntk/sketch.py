"""The kernel by random projections of the Jacobian: S = J R with D random directions in parameter space.

R [P, D] holds independent signs, so E R R^T / D is the identity and S S'^T / D is unbiased for J J'^T. The D directions
are cut into blocks, each of which gives an independent estimate:

    K_b[n, m, c, c'] = < S_b[n, c] , S'_b[m, c'] > / D_b,    blocks b of D_b directions, sum_b D_b = D
    Var K[n, m, c, c'] = (|a|^2 |b|^2 + <a, b>^2 - 2 sum_p a_p^2 b_p^2) / D    for the rows a, b of J concerned

Parameters whose exact factor takes no more memory than their sketch would (among them nearly all layers with one
position, biases and norms), and look-ups, whose Gram blocks are cheap, are not sketched: their Gram blocks are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import cast

import torch
from tqdm import tqdm

from twophase_fast import ops
from twophase_fast._types import InputError, UnsupportedModelError
from twophase_fast.ntk.capture import Section, capture_section
from twophase_fast.ntk.checks import all_finite, is_asynchronous
from twophase_fast.ntk.computation import Computation
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.plan import Group, Plan, Task
from twophase_fast.ntk.planner import make_plan
from twophase_fast.ntk.probe import Structure, probe
from twophase_fast.ntk.program import describe, widest_program
from twophase_fast.ntk.projection import CELL, Projection
from twophase_fast.ntk.survey import Profile, can_batch, survey, widest
from twophase_fast.ntk.uncertainty import WeightedMean
from twophase_fast.rules.factors import Factor

_IRREGULAR_TILE = 16
_IRREGULAR_SLICE = 64 * 2**20


class SketchedKernel:
    """A kernel in two parts: exact Gram blocks of some parameters, and a sketch of all others.

    Args:
        function: Model, output function and selected parameters.
        left: The N samples.
        right: The M samples, or None for the symmetric kernel.
        output: `full`, `trace`, `diagonal` or `sum`.
        directions: D, random directions in all.
        seed: Decides R.
        budget: Bytes that may be used.

    Attributes:
        exact: Names of the parameters whose Gram blocks are exact.
        sketched: Names of the others.
    """

    def __init__(
        self,
        function: Function,
        left: Batch,
        right: Batch | None,
        output: str,
        *,
        directions: int,
        seed: int,
        budget: int,
    ) -> None:
        self.function, self.left, self.right, self.output = function, left, right, output
        self.directions, self.seed, self.budget = directions, seed, budget
        self._sides = [left] if right is None else [left, right]
        self._structures = [probe(function, side) for side in self._sides]
        self._rows = self._output_rows()
        profiles = self._survey()
        self.exact = self._cheap_exactly(profiles)
        self.sketched = tuple(n for n in function.parameters if n not in self.exact)
        kept = [p for p in profiles if p.name in self.sketched]
        self._plan = self._make_plan(kept) if profiles and kept else self._irregular_plan()

    def estimate(self, blocks: int, *, progress: bool) -> WeightedMean:
        """Return the mean over `blocks` blocks of directions; its standard error is that of the sketched part."""
        exact = self._exact_part(progress=progress)
        sketches = self._sketches(progress=progress)
        mean = WeightedMean()
        for piece in _pieces(self.directions, blocks):
            block = self._block(*(sketch[..., piece] for sketch in sketches))
            mean.add(block if exact is None else block + exact, weight=piece.stop - piece.start)
        return mean

    def _output_rows(self) -> torch.Tensor:
        """Return the combinations of outputs [K, C] that are pulled back.

        Raises:
            InputError: Both sides have differing numbers of outputs.
        """
        counts = [s.outputs for s in self._structures]
        if len(set(counts)) > 1:
            raise InputError(f"x1 gives {counts[0]} outputs and x2 gives {counts[1]}; they must agree")
        identity = torch.eye(counts[0], dtype=torch.float64)
        return identity.sum(0, keepdim=True) * counts[0] ** -0.5 if self.output == "sum" else identity

    @property
    def _task(self) -> Task:
        rows, columns = self.left.size, None if self.right is None else self.right.size
        options = {"kernels": 5, "asynchronous": is_asynchronous(self.function.device)}
        task = Task(rows, columns, len(self._rows), self._form, self.function.dtype.itemsize, **options)
        cell = 3 * CELL * task.itemsize
        return replace(task, reserved=task.samples * task.classes * self.directions * task.itemsize + cell)

    @property
    def _form(self) -> str:
        return "trace" if self.output == "sum" else self.output

    def _survey(self) -> list[Profile]:
        """Return the profiles of both sides, or none where the program depends on the data."""
        if any(s.signature is None for s in self._structures):
            return []
        return widest([survey(self.function, s, None) for s in self._structures])

    def _cheap_exactly(self, profiles: Sequence[Profile]) -> tuple[str, ...]:
        """Return the parameters that are not sketched."""
        if not profiles:
            return tuple(n for n, p in self.function.parameters.items() if p.numel() <= self.directions)
        classes, itemsize = len(self._rows), self.function.dtype.itemsize
        sketch = classes * self.directions * itemsize
        used = {p.name for p in profiles}
        cheap = {p.name for p in profiles if p.sizes.kind == "lookup" or p.stored_bytes(classes, itemsize) <= sketch}
        if not cheap:
            return ()  # parameters without a use have no block
        return tuple(n for n in self.function.parameters if n in cheap or n not in used)

    def _make_plan(self, profiles: Sequence[Profile]) -> Plan:
        """Plan tiles and groups; no factor is held beyond its tile."""
        fleeting = [replace(p, operand_bytes=0, cotangent_bytes=0) for p in profiles]
        sides = zip(self._sides, self._structures)
        program = widest_program([describe(s, None) for _, s in sides])
        batched = len(self._rows) > 1 and not can_batch(self._structures[0], None)
        whole = replace(program, cuts=())  # every group starts at the outputs
        return make_plan(fleeting, self._task, whole, budget=self.budget, batched=batched)

    def _irregular_plan(self) -> Plan:
        task = self._task
        tile = min(_IRREGULAR_TILE, max(task.rows, task.columns or 0))
        groups = (Group(self.sketched),) if self.sketched else ()
        return Plan(task, max(task.rows, task.partners), tile, task.classes, 1, groups, {}, _IRREGULAR_SLICE, 0)

    def _exact_part(self, *, progress: bool) -> torch.Tensor | None:
        """Return the sum of the exact Gram blocks."""
        if not self.exact:
            return None
        parameters = {name: self.function.parameters[name] for name in self.exact}
        function = replace(self.function, parameters=parameters)
        computation = Computation(
            function, self.left, self.right, self.output, None, self.budget, reserved=self._task.kernel_bytes
        )
        return computation.kernels(progress=progress)[""]

    def _sketches(self, *, progress: bool) -> list[torch.Tensor]:
        """Return S [N, K, D] of every side."""
        projection = Projection(self.seed, self.directions, self._plan.slice_bytes)
        starts = [range(0, side.size, self._plan.tile) for side in self._sides]
        steps = len(self._plan.groups) * len(self._plan.chunks) * sum(len(s) for s in starts)
        sketches = []
        with tqdm(total=steps, disable=not progress, desc="sketch", unit="tile") as bar:
            for side, structure in zip(self._sides, self._structures):
                sketches.append(self._sketch(side, structure, projection, bar))
        return sketches

    def _sketch(self, side: Batch, structure: Structure, projection: Projection, bar: tqdm) -> torch.Tensor:
        """Return S [N, K, D] of one side."""
        plan, rows = self._plan, self._rows
        shape = (side.size, len(rows), self.directions)
        sketch = torch.zeros(shape, dtype=self.function.dtype, device=self.function.device)
        pieces = [slice(start, min(start + plan.tile, side.size)) for start in range(0, side.size, plan.tile)]
        for group, chunk, piece in product(plan.groups, plan.chunks, pieces):
            factors, _ = capture_section(
                self.function,
                side.take(piece),
                structure,
                rows[chunk],
                Section(group.names, batched=not plan.by_rule),
                first=piece.start == 0,
                at_once=plan.at_once,
            )
            for name in list(factors):
                factor = cast("Factor", factors.pop(name))  # no readout is cut off
                sketch[piece, chunk] += self._projected(projection, name, factor)
            bar.update(1)
        return sketch

    def _projected(self, projection: Projection, name: str, factor: Factor) -> torch.Tensor:
        """Return one factor's sketch.

        Raises:
            UnsupportedModelError: The Jacobian has NaN or infinite entries.
        """
        sketch = projection(name, self.function.parameters[name].shape, factor)
        if not bool(all_finite(sketch)):
            raise UnsupportedModelError(
                f"the Jacobian of {name!r} has NaN or infinite entries, so its kernel is not defined; look for a "
                "square root or division at zero on the way to the output"
            )
        return sketch

    def _block(self, left: torch.Tensor, right: torch.Tensor | None = None) -> torch.Tensor:
        """Return the kernel of one block of directions, sketches [N, K, D_b] and [M, K, D_b]."""
        (n, k, d), m = left.shape, len(left if right is None else right)
        if self._form == "full":
            gram = ops.gram(*_both(left, right, lambda s: s.reshape(-1, d)))
            return gram.view(n, k, m, k).permute(0, 2, 1, 3) / d
        if self._form == "trace":
            return ops.gram(*_both(left, right, lambda s: s.reshape(len(s), -1))) / d
        return ops.gram(*_both(left, right, lambda s: s.transpose(0, 1))).permute(1, 2, 0) / d


def _both(
    left: torch.Tensor, right: torch.Tensor | None, form: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return form(left), None if right is None else form(right)


def _pieces(directions: int, blocks: int) -> Iterator[slice]:
    """Yield `blocks` slices of the directions whose sizes differ by at most one."""
    bounds = [directions * b // blocks for b in range(blocks + 1)]
    yield from (slice(a, b) for a, b in pairwise(bounds))
