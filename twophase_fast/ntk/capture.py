"""One tile of samples: forward, pull-back of the outputs' cotangents, factors of every selected parameter.

Only cotangents at the outputs of uses are pulled back; no weight gradient is ever asked for. Each cotangent is sorted
by sample as it arrives: [N, C, *before, outer, inner, *after].
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch.autograd.graph import GradientEdge

from twophase_fast._pages import room
from twophase_fast._types import UnsupportedModelError
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.graph import Graph, pull
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.probe import Structure, check_same_rows, irregular_uses
from twophase_fast.ntk.program import Cut
from twophase_fast.ntk.readout import FeatureSeeds, Readout, ReadoutFactor
from twophase_fast.ntk.uses import UseSpec
from twophase_fast.rules import RULES, AnyLayout, Use, generic
from twophase_fast.rules.chain import chain
from twophase_fast.rules.factors import Factor, combine, first_samples
from twophase_fast.rules.layout import ElementLayout

Cotangents = dict[tuple[int, int], torch.Tensor]
AnyFactor = Factor | ReadoutFactor


@dataclass(frozen=True)
class Section:
    """The part of a pull-back that one group of parameters needs.

    Attributes:
        names: Parameters to capture (None: all selected); nothing deeper than their uses is pulled back.
        start: Cut where the pull-back starts, with the cotangents [K, *shape] there; None: the outputs.
        keep: Cut whose cotangents are returned too, for a section further down (None is returned for a batch on which
            the model runs another program: sections further down then start at the outputs).
    """

    names: Collection[str] | None = None
    start: tuple[Cut, torch.Tensor] | None = None
    keep: Cut | None = None


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

    Raises:
        UnsupportedModelError: The model couples samples, or its program changes under a readout that was cut off.
    """
    graph = function.graph(batch)
    if first:
        index = structure.sample_index[structure.sample_index < batch.size]
        rows = graph.output.detach()[index.to(graph.output.device)]
        check_same_rows(rows, structure.rows[: len(index)])
    options = {"readout": readout, "at_once": at_once}
    if structure.signature is not None and graph.signature() != structure.signature:
        if batch.size == 1:  # torch takes other views for a batch of one: run the sample twice and keep one
            twice = batch.take(torch.zeros(2, dtype=torch.long, device=function.device))
            pair, kept = capture_section(function, twice, structure, directions, section, **options)
            return {name: first_samples(factor, 1) for name, factor in pair.items()}, kept
        if readout is not None:
            raise UnsupportedModelError("the model runs another program on this batch than on the probe batch")
    if readout is not None:
        return capture_features(function, graph, readout, directions, section, at_once)
    seeds = Seeds(graph, directions)
    if graph.signature() != structure.signature:  # cuts are places in the probe's graph: pull back from the outputs
        whole = Section(section.names)
        return body_factors(function, graph, irregular_uses(function, graph), seeds, whole, at_once)
    return body_factors(function, graph, structure.uses, _start(graph, section, seeds), section, at_once)


def _start(graph: Graph, section: Section, outputs: Start) -> Start:
    """Return where the pull-back of a section starts."""
    return outputs if section.start is None else CutSeeds(graph, *section.start)


def body_factors(
    function: Function, graph: Graph, uses: Sequence[UseSpec], seeds: Start, section: Section, at_once: int = 1
) -> tuple[dict[str, Factor], torch.Tensor | None]:
    """Pull back from `seeds` and return parameter name -> factor, and the cotangents at the cut to keep."""
    names = section.names
    if names is not None:
        uses = [u for u in (_restricted(u, names) for u in uses) if u.slots]
    cotangents, kept = pull_back(graph, uses, seeds, at_once, section.keep)
    factors = factors_of(function, graph, uses, cotangents)
    return factors if names is None else {name: factors[name] for name in factors if name in names}, kept


def capture_features(
    function: Function,
    graph: Graph,
    readout: Readout,
    directions: torch.Tensor,
    section: Section,
    at_once: int = 1,
) -> tuple[dict[str, AnyFactor], torch.Tensor | None]:
    """Return the factors below a readout, the readout's own, and the cotangents at the cut to keep."""
    names = section.names
    rows, features = readout.features(graph)
    seeds = _start(graph, section, FeatureSeeds(graph, readout, rows, directions))
    found, kept = body_factors(function, graph, readout.uses, seeds, section, at_once)
    factors: dict[str, AnyFactor] = {**found}
    if readout.weight is not None and (names is None or readout.weight in names):
        tied = factors.get(readout.weight)
        parts = (None, None) if tied is None else (tied.tokens, tied.g)
        shape = torch.Size(readout.matrix.shape)
        factors[readout.weight] = ReadoutFactor(features, *parts, shape).to(function.dtype)
    if readout.bias is not None and (names is None or readout.bias in names):
        ones = features.new_ones(len(features), 1)
        factors[readout.bias] = ReadoutFactor(ones, None, None, torch.Size((len(readout.matrix),))).to(function.dtype)
    return factors, kept


class Start(Protocol):
    """Where a pull-back starts: K cotangents."""

    def __len__(self) -> int: ...

    def pull(self, edges: list[GradientEdge], ks: slice, *, batched: bool) -> tuple[torch.Tensor | None, ...]:
        """Return the cotangents of starts `ks` at `edges`, each [k, *shape] (one k unless batched)."""


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

    def pull(self, edges: list[GradientEdge], ks: slice, *, batched: bool) -> tuple[torch.Tensor | None, ...]:
        """Return the cotangents of sum_c directions[k, c] f_c at `edges`."""
        y = self.graph.output
        seeds = self.directions[ks].to(y).unsqueeze(1)
        return pull([y], edges, seeds.expand(-1, *y.shape), batched=batched)


@dataclass(frozen=True)
class CutSeeds:
    """A pull-back that goes on from the cotangents kept at a cut, [K, *shape]."""

    graph: Graph
    cut: Cut
    cotangents: torch.Tensor

    def __len__(self) -> int:
        return self.cotangents.shape[0]

    def pull(self, edges: list[GradientEdge], ks: slice, *, batched: bool) -> tuple[torch.Tensor | None, ...]:
        """Return the cotangents of starts `ks` at `edges`."""
        root = GradientEdge(self.graph.nodes[self.cut.node], self.cut.output)
        return pull([root], edges, self.cotangents[ks], batched=batched)


def _restricted(use: UseSpec, names: Collection[str]) -> UseSpec:
    """Return the use with only those slots that some of the named parameters feed."""
    return replace(use, slots=tuple(slot for slot in use.slots if not set(slot.leaves).isdisjoint(names)))


def pull_back(
    graph: Graph, uses: Sequence[UseSpec], seeds: Start, at_once: int = 1, keep: Cut | None = None
) -> tuple[Cotangents, torch.Tensor | None]:
    """Return (node position, output index) -> cotangents [N, K, *before, outer, inner, *after], and those at `keep`.

    `at_once` > 1 pulls that many back in one batched call. The cotangents at `keep` are [K, *shape], as they came.
    """
    layouts = {(u.node, j): layout for u in uses for j, layout in u.layouts.items()}
    places = list(layouts) if keep is None else [*layouts, (keep.node, keep.output)]
    edges = [GradientEdge(graph.nodes[index], j) for index, j in places]
    collected: Cotangents = {}
    kept: torch.Tensor | None = None
    for first in range(0, len(seeds) if edges else 0, at_once):
        ks = slice(first, min(first + at_once, len(seeds)))
        grads = seeds.pull(edges, ks, batched=at_once > 1)
        if keep is not None:
            kept = _room_at(graph, keep, len(seeds)) if kept is None else kept
            kept[ks] = 0 if grads[-1] is None else grads[-1].detach()
        for key, grad in zip(layouts, grads):
            if grad is not None:
                _store(collected, key, layouts[key], grad.detach(), ks, len(seeds))
            elif key in collected:
                collected[key][:, ks].zero_()
    return collected, kept


def _room_at(graph: Graph, cut: Cut, count: int) -> torch.Tensor:
    """Return an empty tensor for the cotangents [K, *shape] at a cut."""
    metadata = graph.nodes[cut.node]._input_metadata[cut.output]
    return room((count, *metadata.shape), metadata.dtype, graph.output.device)


def _store(
    collected: Cotangents, key: tuple[int, int], layout: AnyLayout, grads: torch.Tensor, ks: slice, count: int
) -> None:
    """Put the cotangents of starts `ks` in their places."""
    for k, grad in zip(range(ks.start, ks.stop), grads):
        by_sample = layout.by_sample(grad)
        if key not in collected:
            shape = (by_sample.shape[0], count, *by_sample.shape[1:])
            collected[key] = grad.new_zeros(shape) if k else grad.new_empty(shape)
        collected[key][:, k].copy_(by_sample)


def factors_of(function: Function, graph: Graph, uses: Sequence[UseSpec], cotangents: Cotangents) -> dict[str, Factor]:
    """Turn every use's cotangents into factors, freeing them as they are used."""
    parts: dict[str, list[Factor]] = {}
    for spec in uses:
        held = {j: cotangents.pop((spec.node, j)) for j in spec.layouts if (spec.node, j) in cotangents}
        if not held:
            continue
        for name, factor in _use_factors(function, graph, spec, held):
            parts.setdefault(name, []).append(factor.to(function.dtype))
    return {name: combine(parts[name]) for name in function.parameters if name in parts}


def _use_factors(
    function: Function, graph: Graph, spec: UseSpec, held: dict[int, torch.Tensor]
) -> Iterator[tuple[str, Factor]]:
    node = graph.nodes[spec.node]
    by_element = any(isinstance(layout, ElementLayout) for layout in spec.layouts.values())
    for slot in spec.slots:
        source = graph.nodes[slot.source[0]], slot.source[1]
        shape = torch.Size(source[0].variable.shape if hasattr(source[0], "variable") else _shape(source))
        use = Use(node, slot.slot, shape, spec.layouts, held)
        factor = RULES[spec.name](use) if spec.name in RULES and not by_element else None
        leaves = {name: function.parameters[name] for name in slot.leaves}
        yield from chain(generic(use) if factor is None else factor, source, leaves).items()


def _shape(source: tuple[torch.autograd.graph.Node, int]) -> tuple[int, ...]:
    return tuple(source[0]._input_metadata[source[1]].shape)
