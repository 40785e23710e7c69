"""Sizes of every parameter's uses, measured on the probe batch: what the planner reasons with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from twophase_fast.ntk.calibration import Rates, known_rates
from twophase_fast.ntk.capture import AnyFactor, Assembly, Seeds, with_readout
from twophase_fast.ntk.cost import Method, Sizes
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.graph import Graph
from twophase_fast.ntk.plan import Plan, Row
from twophase_fast.ntk.probe import Structure
from twophase_fast.ntk.pullback import placeholders, pull_back
from twophase_fast.ntk.readout import FeatureSeeds, Readout, ReadoutFactor, root_of, route_of
from twophase_fast.ntk.route import Route, between
from twophase_fast.ntk.uses import UseSpec
from twophase_fast.rules.factors import Conv, Dense, Factor, Lookup


@dataclass(frozen=True)
class Profile:
    """One parameter's factor, per sample.

    Attributes:
        name: The parameter.
        sizes: Form and dimensions of its factor.
        operand_bytes: Bytes of the layer's input (or the tokens), per sample.
        cotangent_bytes: Bytes of the kept cotangents, per sample and output.
        arrivals: Node position -> bytes of the cotangents its uses pull back there, per sample and output.
        depth: Position of its first use in the backward order: larger is reached earlier.
        bottom: Position of its last use.
        nodes: Names of the autograd nodes of its uses.
        passing: Whether its factor can be put away while the pull-back goes on.
    """

    name: str
    sizes: Sizes
    operand_bytes: int
    cotangent_bytes: int
    arrivals: dict[int, int]
    depth: int
    bottom: int
    nodes: tuple[str, ...]
    passing: bool = False

    def stored_bytes(self, classes: int, itemsize: int) -> int:
        """Return the bytes kept per sample: the factor, or its Jacobian where that is smaller."""
        jacobian = classes * self.sizes.elements * itemsize
        if self.sizes.kind == "dense":
            return jacobian
        factor = self.operand_bytes + classes * self.cotangent_bytes
        return factor if self.sizes.kind in ("lookup", "readout") else min(factor, jacobian)


def survey(function: Function, structure: Structure, readout: Readout | None) -> list[Profile]:
    """Return one profile per selected parameter with a use, in the order the pull-back reaches them."""
    graph, uses = structure.graph, structure.uses if readout is None else readout.uses
    route = route_of(structure, readout)
    factors: dict[str, AnyFactor] = {**Assembly(function, graph, uses).finish(placeholders(graph, uses, route))}
    if readout is not None:
        factors = with_readout(function, readout, readout.features(graph)[1], factors)
    own: dict[str, list[UseSpec]] = {name: [] for name in factors}
    for use in uses:
        for name in {name for slot in use.slots for name in slot.leaves} & own.keys():
            own[name].append(use)
    profiles = [_profile(name, factor, own[name], graph, route) for name, factor in factors.items()]
    return sorted(profiles, key=lambda profile: -profile.depth)


def with_rows(plan: Plan, profiles: Sequence[Profile], rates: Rates) -> Plan:
    """Return the plan with one row per parameter."""
    task, by_name = plan.task, {p.name: p for p in profiles}
    rows, methods = [], {}
    for index, group in enumerate(plan.groups):
        for p in (by_name[name] for name in group.names):
            partners = min(plan.side, task.rows), min(plan.side, task.partners)
            method = p.sizes.choose(task.output, plan.chunk, *partners, rates)
            flops = p.sizes.flops(method, task.output, task.classes, *partners) * task.pairs
            s = p.sizes
            stored = p.stored_bytes(plan.chunk, task.itemsize) * min(plan.side * 2, task.samples)
            row = (p.name, p.nodes, s.kind, s.positions, s.inputs, s.outputs, s.elements, method)
            rows.append(Row(*row, flops, stored, index))
            methods[p.name] = method
    return replace(plan, rows=tuple(rows), methods=methods)


def can_batch(structure: Structure, readout: Readout | None) -> str:
    """Return why several directions cannot (or should not) be pulled back in one call; empty if they can.

    By rule they can (see `route`). In torch's engine convolutions are slower that way (measured), and some nodes have
    no batched backward, which is tried with one direction on the smaller graph.
    """
    graph, uses = structure.smaller, structure.uses if readout is None else readout.uses
    if not route_of(structure, readout).plain:
        return ""
    root = root_of(graph, readout)
    passed = set() if root is None else set(between(graph, graph.nodes[root[0]], {graph.nodes[u.node] for u in uses}))
    if any("Convolution" in n.name() and any(m in passed for m, _ in n.next_functions) for n in passed):
        return "convolutions"
    width = structure.outputs if readout is None else readout.matrix.shape[1]
    one = torch.eye(1, width, dtype=torch.float64)
    seeds = Seeds(graph, one) if readout is None else FeatureSeeds(graph, readout, readout.features(graph)[0], one)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pull_back(seeds, uses, at_once=2)
    except (RuntimeError, UserWarning) as error:
        return str(error).splitlines()[0]
    return ""


def widest(surveys: Sequence[Sequence[Profile]]) -> list[Profile]:
    """Return one survey for both sides of a cross kernel, with the larger sizes where they differ."""
    first, *others = surveys
    by_name = {p.name: p for other in others for p in other}
    return [
        max((p, by_name.get(p.name, p)), key=lambda q: (q.sizes.positions, sum(q.arrivals.values()))) for p in first
    ]


def sizes_of(factor: AnyFactor) -> Sizes:
    """Return the dimensions of a factor."""
    elements = factor.jacobian[0, 0].numel() if isinstance(factor, Dense) else factor.shape.numel()
    factored = not isinstance(factor, Dense | Lookup | ReadoutFactor) and (
        not isinstance(factor, Conv) or factor.unfolds
    )
    return Sizes(factor.kind, *factor.dimensions, elements, factored)


def method_of(factor: Factor, output: str, partners: int) -> Method:
    """Return the cheapest method for a factor in hand (programs that depend on the data have no profiles)."""
    classes = factor.operand.shape[1] if isinstance(factor, Dense) else factor.g.shape[1]
    rates = known_rates(factor.operand.device)
    return sizes_of(factor).choose(output, classes, factor.samples, partners, rates)


def _profile(name: str, factor: AnyFactor, own: Sequence[UseSpec], graph: Graph, route: Route) -> Profile:
    per_element = graph.output.element_size() / graph.output.shape[0]
    elements = {u.node: sum(graph.shapes[u.node][j].numel() for j in u.layouts) for u in own}
    elements = {node: 0 if node in route.summed else count for node, count in elements.items()}
    dense = isinstance(factor, Dense)
    depths = [graph.depths[u.node] for u in own] or [graph.depths[0]]
    return Profile(
        name,
        sizes_of(factor),
        operand_bytes=0 if dense else _bytes(factor.operand),
        cotangent_bytes=0 if dense or factor.g is None else _bytes(factor.g),
        arrivals={node: int(count * per_element) for node, count in elements.items()},
        depth=max(depths),
        bottom=min(depths),
        nodes=tuple(u.name for u in own),
        passing=len(own) == 1 and route.gathers(own[0]),
    )


def _bytes(tensor: torch.Tensor) -> int:
    return tensor[:1].numel() * tensor.element_size()
