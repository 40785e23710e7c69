"""One tile of samples: forward, pull-back of the outputs' cotangents, factors of every selected parameter.

Only cotangents at the outputs of uses are pulled back; no weight gradient is ever asked for. Each cotangent is sorted
by sample as it arrives: [N, C, *before, outer, inner, *after].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch

from twophase_fast._types import Precision, UnsupportedModelError
from twophase_fast.ntk.checks import Checks, same_rows
from twophase_fast.ntk.collector import Collected
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.graph import Graph, Place
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.probe import Structure, check_same_rows, irregular_uses
from twophase_fast.ntk.program import Cut
from twophase_fast.ntk.pullback import Start, pull_back
from twophase_fast.ntk.readout import FeatureSeeds, Readout, ReadoutFactor
from twophase_fast.ntk.uses import SlotSpec, UseSpec
from twophase_fast.rules import RULES, Use, generic
from twophase_fast.rules.chain import chain
from twophase_fast.rules.factors import Dense, Factor, combine, first_samples
from twophase_fast.rules.layout import ElementLayout

AnyFactor = Factor | ReadoutFactor
Take = Callable[[str, Factor], bool]


@dataclass(frozen=True)
class Section:
    """The part of a pull-back that one group of parameters needs.

    Attributes:
        names: Parameters to capture (None: all selected); nothing deeper than their uses is pulled back.
        start: Cut where the pull-back starts, with the cotangents [K, *shape] there; None: the outputs.
        keep: Cut whose cotangents are returned too, for a section further down (None is returned for a batch on which
            the model runs another program: sections further down then start at the outputs).
        precision: Of convolutions and linear layers on the way.
        batched: Whether torch's engine, where it runs everything, may pull several outputs back in one call.
    """

    names: Collection[str] | None = None
    start: tuple[Cut, torch.Tensor] | None = None
    keep: Cut | None = None
    precision: Precision = "highest"
    batched: bool = True


def capture(
    function: Function, batch: Batch, structure: Structure, directions: torch.Tensor, *, first: bool = False
) -> dict[str, AnyFactor]:
    """Return parameter name -> factor of its Jacobian on `batch` for all selected parameters (`capture_section`)."""
    return capture_section(function, batch, structure, directions, Section(), first=first)[0]


def capture_section(
    function: Function,
    batch: Batch,
    structure: Structure,
    directions: torch.Tensor,
    section: Section,
    *,
    first: bool = False,
    readout: Readout | None = None,
    at_once: int = 1,
    take: Take | None = None,
    checks: Checks | None = None,
    graph: Graph | None = None,
) -> tuple[dict[str, AnyFactor], torch.Tensor | None]:
    """Return parameter name -> factor of its Jacobian on `batch`, and the cotangents at the cut to keep.

    Args:
        function: Model, output function and selected parameters.
        batch: The samples of one tile.
        structure: What the probe found.
        directions: Rows [K, C]; the factors are those of the K outputs sum_c directions[k, c] f_c (the identity for
            the model's own outputs), or of directions [K, D] of the features where a readout was cut off.
        section: Which parameters, and where the pull-back starts and what it keeps.
        first: The batch starts with the samples the probe ran on; their outputs are then compared, which shows a
            coupling between samples.
        readout: A readout that is cut off; its own factor is then a `ReadoutFactor`.
        at_once: Directions pulled back in one batched call.
        take: Is handed every factor as soon as it is complete; those it keeps (it returns True) are not returned.
        checks: Take what is required of values; None: they are looked at here.
        graph: Of this batch, if the probe ran on it; else the model is run.

    Raises:
        UnsupportedModelError: The model couples samples, or its program changes under a readout that was cut off.
    """
    probed = graph is not None
    graph = graph or function.graph(batch, checks)
    if first and not probed:
        _check_probed_rows(graph, structure, checks, function.eps)
    options = {"readout": readout, "at_once": at_once, "checks": checks}
    if structure.signature is not None and graph.signature() != structure.signature:
        if batch.size == 1:  # torch takes other views for a batch of one: run the sample twice and keep one
            twice = batch.take(torch.zeros(2, dtype=torch.long, device=function.device))
            one = None if take is None else lambda name, factor: take(name, first_samples(factor, 1))
            pair, kept = capture_section(function, twice, structure, directions, section, take=one, **options)
            return {name: first_samples(factor, 1) for name, factor in pair.items()}, kept
        if readout is not None:
            raise UnsupportedModelError("the model runs another program on this batch than on the probe batch")
    if readout is not None:
        return capture_features(function, graph, readout, directions, section, at_once, take, checks)
    seeds = Seeds(graph, directions)
    if graph.signature() != structure.signature:  # cuts are places in the probe's graph: pull back from the outputs
        whole = Section(section.names, precision=section.precision, batched=section.batched)
        return body_factors(function, graph, irregular_uses(function, graph), seeds, whole, at_once, take)
    return body_factors(function, graph, structure.uses, _start(graph, section, seeds), section, at_once, take)


def _check_probed_rows(graph: Graph, structure: Structure, checks: Checks | None, eps: float) -> None:
    """Require the outputs of the samples that the probe ran on to be those of the probe."""
    output = graph.output.detach()
    probed = [(k, n) for k, n in enumerate(structure.sample_index.tolist()) if n < len(output)]  # on the host
    rows, expected = torch.stack([output[n] for _, n in probed]), torch.stack([structure.rows[k] for k, _ in probed])
    if checks is None:
        check_same_rows(rows, expected, eps)
    else:
        checks.require(same_rows(rows, expected, eps), lambda: check_same_rows(rows, expected, eps))


def _start(graph: Graph, section: Section, outputs: Start) -> Start:
    """Return where the pull-back of a section starts."""
    return outputs if section.start is None else CutSeeds(graph, *section.start)


def body_factors(
    function: Function,
    graph: Graph,
    uses: Sequence[UseSpec],
    seeds: Start,
    section: Section,
    at_once: int = 1,
    take: Take | None = None,
) -> tuple[dict[str, Factor], torch.Tensor | None]:
    """Pull back from `seeds` and return parameter name -> factor, and the cotangents at the cut to keep."""
    names = section.names
    if names is not None:
        uses = [u for u in (_restricted(u, names) for u in uses) if u.slots]
    keep = None if section.keep is None else (section.keep.node, section.keep.output)
    assembly = Assembly(function, graph, uses, names, take)
    how = {"precision": section.precision, "batched": section.batched}
    found = pull_back(seeds, uses, at_once, keep, arrived=assembly.add, **how)
    return assembly.finish(found), found.kept


def capture_features(
    function: Function,
    graph: Graph,
    readout: Readout,
    directions: torch.Tensor,
    section: Section,
    at_once: int = 1,
    take: Take | None = None,
    checks: Checks | None = None,
) -> tuple[dict[str, AnyFactor], torch.Tensor | None]:
    """Return the factors below a readout, the readout's own, and the cotangents at the cut to keep."""
    rows, features = readout.features(graph, checks)
    seeds = _start(graph, section, FeatureSeeds(graph, readout, rows, directions))

    def below(name: str, factor: Factor) -> bool:
        return name != readout.weight and take is not None and take(name, factor)

    found, kept = body_factors(function, graph, readout.uses, seeds, section, at_once, below)
    return with_readout(function, readout, features, found, section.names), kept


def with_readout(
    function: Function,
    readout: Readout,
    features: torch.Tensor,
    found: dict[str, Factor],
    names: Collection[str] | None = None,
) -> dict[str, AnyFactor]:
    """Return the factors below a readout together with those of the readout itself."""
    factors: dict[str, AnyFactor] = {**found}
    if readout.weight is not None and (names is None or readout.weight in names):
        tied = factors.get(readout.weight)
        parts = (None, None) if tied is None else (tied.tokens, tied.g)
        shape = torch.Size(readout.matrix.shape)
        factors[readout.weight] = ReadoutFactor(features, *parts, shape).to(function.dtype)
    if readout.bias is not None and (names is None or readout.bias in names):
        ones = features.new_ones(len(features), 1)
        factors[readout.bias] = ReadoutFactor(ones, None, None, torch.Size((len(readout.matrix),))).to(function.dtype)
    return factors


@dataclass(frozen=True)
class Seeds:
    """The cotangents a pull-back starts from: the same direction for every sample.

    Attributes:
        graph: The tile's graph; it starts at its output [N, C].
        directions: [K, C].
    """

    graph: Graph
    directions: torch.Tensor

    def __len__(self) -> int:
        return self.directions.shape[0]

    @property
    def place(self) -> Place:
        """The output's place."""
        return self.graph.index[self.graph.output.grad_fn], self.graph.output.output_nr

    def cotangents(self, ks: slice) -> torch.Tensor:
        """Return the cotangents [k, N, C] of sum_c directions[k, c] f_c."""
        y = self.graph.output
        return self.directions[ks].to(y).unsqueeze(1).expand(-1, *y.shape)


@dataclass(frozen=True)
class CutSeeds:
    """A pull-back that goes on from the cotangents kept at a cut, [K, *shape]."""

    graph: Graph
    cut: Cut
    kept: torch.Tensor

    def __len__(self) -> int:
        return self.kept.shape[0]

    @property
    def place(self) -> Place:
        """The cut."""
        return self.cut.node, self.cut.output

    def cotangents(self, ks: slice) -> torch.Tensor:
        """Return the cotangents of starts `ks`."""
        return self.kept[ks]


def _restricted(use: UseSpec, names: Collection[str]) -> UseSpec:
    """Return the use with only those slots that some of the named parameters feed."""
    return replace(use, slots=tuple(slot for slot in use.slots if not set(slot.leaves).isdisjoint(names)))


class Assembly:
    """Factors put together from the uses' cotangents, which are freed as they are used.

    Args:
        function: Names the parameters.
        graph: The tile's graph.
        uses: Every use that is pulled back to.
        names: Parameters that are wanted (None: all selected).
        take: Is handed every factor as soon as it is complete, and says whether it keeps it.
    """

    def __init__(
        self,
        function: Function,
        graph: Graph,
        uses: Sequence[UseSpec],
        names: Collection[str] | None = None,
        take: Take | None = None,
    ) -> None:
        self._function, self._graph, self._names, self._take = function, graph, names, take
        self._left = {use.node: use for use in uses}
        self._missing = Counter(name for use in uses for slot in use.slots for name in slot.leaves)
        self._parts: dict[str, list[Factor]] = {}
        self._factors: dict[str, Factor] = {}

    def add(self, node: int, found: Collected) -> None:
        """Add the parts of one use, if it is one, from what has arrived there."""
        spec = self._left.pop(node, None)
        if spec is None:
            return
        held = {j: found.cotangents.pop((node, j)) for j in spec.layouts if (node, j) in found.cotangents}
        for slot in spec.slots:
            done = found.sums.pop((node, slot.slot), None)
            if held or done is not None:
                self._add_slot(spec, slot, held, done)
            for name in slot.leaves:
                self._missing[name] -= 1
                if not self._missing[name] and name in self._parts:
                    self._complete(name)

    def finish(self, found: Collected) -> dict[str, Factor]:
        """Return the factors that nobody took, after the uses that are left."""
        for node in list(self._left):
            self.add(node, found)
        return {name: self._factors[name] for name in self._function.parameters if name in self._factors}

    def _add_slot(
        self, spec: UseSpec, slot: SlotSpec, held: dict[int, torch.Tensor], done: torch.Tensor | None
    ) -> None:
        source = self._graph.nodes[slot.source[0]], slot.source[1]
        factor = _slot_factor(self._graph, spec, slot, held) if done is None else Dense(done)
        leaves = {name: self._function.parameters[name] for name in slot.leaves}
        for name, part in chain(factor.to(self._function.dtype), source, leaves).items():
            self._parts.setdefault(name, []).append(part.to(self._function.dtype))

    def _complete(self, name: str) -> None:
        factor = combine(self._parts.pop(name))
        wanted = self._names is None or name in self._names
        if wanted and not (self._take is not None and self._take(name, factor)):
            self._factors[name] = factor


def _slot_factor(graph: Graph, spec: UseSpec, slot: SlotSpec, held: dict[int, torch.Tensor]) -> Factor:
    """Return the factor of one slot by its node's rule, or by the generic one.

    Raises:
        UnsupportedModelError: The node computes with complex numbers.
    """
    source = graph.nodes[slot.source[0]], slot.source[1]
    shape = torch.Size(source[0].variable.shape if hasattr(source[0], "variable") else _shape(source))
    use = Use(graph.nodes[spec.node], slot.slot, shape, spec.layouts, held)
    by_element = any(isinstance(layout, ElementLayout) for layout in spec.layouts.values())
    if any(g.is_complex() for g in use.cotangents.values()):
        raise UnsupportedModelError(
            f"a parameter is used by {spec.name} in complex arithmetic, which no rule covers: multiply real and "
            "imaginary parts apart, or leave the parameter out by params="
        )
    factor = RULES[spec.name](use) if spec.name in RULES and not by_element else None
    return generic(use) if factor is None else factor


def _shape(source: tuple[torch.autograd.graph.Node, int]) -> tuple[int, ...]:
    return tuple(source[0]._input_metadata[source[1]].shape)
