"""The way of cotangents through a graph: which nodes are run by `rules.backward`, and which by torch's engine.

Nodes are taken by falling depth, so that a node's cotangent is complete when its turn comes. Neighbours that torch's
engine runs make one step. Where no cotangent goes through a convolution or a linear layer, the whole graph is left to
it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch.autograd.graph import Node

from twophase_fast.ntk.graph import Graph, Place
from twophase_fast.ntk.uses import UseSpec
from twophase_fast.rules import backward

_COSTLY = frozenset(
    f"{name}Backward0" for name in ("Addmm", "Baddbmm", "Bmm", "Convolution", "Mm", "Mv", "CudnnRnn", "MkldnnRnnLayer")
)


class _NotAloneError(Exception):
    """Some nodes can only be run by torch's engine, from the root on."""


@dataclass(frozen=True)
class Engine:
    """Nodes that torch's engine runs.

    Attributes:
        nodes: Their positions.
        exits: Places outside that cotangents leave to.
    """

    nodes: frozenset[int]
    exits: tuple[Place, ...]


@dataclass(frozen=True)
class Call:
    """One node that is called by itself, one cotangent after the other.

    Attributes:
        node: Its position.
        targets: Slot -> place the result goes to.
    """

    node: int
    targets: dict[int, Place]


@dataclass(frozen=True)
class Single:
    """One node that `rules.backward` runs.

    Attributes:
        node: Its position.
        targets: Slot -> place the result goes to.
    """

    node: int
    targets: dict[int, Place]


@dataclass(frozen=True)
class Norm:
    """A normalisation, and the ReLU that follows it.

    Attributes:
        node: Position of the normalisation.
        relu: Position of the ReLU, or None.
        target: Place the cotangent of the input goes to, or None.
    """

    node: int
    relu: int | None
    target: Place | None


Ways = dict[int, dict[int, Place]]
"""Node -> slot -> place, for the slots that lead to a use."""

Step = Engine | Call | Single | Norm


@dataclass(frozen=True)
class Route:
    """The steps of a pull-back.

    Attributes:
        steps: In order.
        by_rule: Positions of the nodes that `rules.backward` runs: their cotangents lie in memory as [B, K, *rest].
        summed: Positions of the normalisations whose parameters' gradients their step gives; their cotangents are kept
            by nobody.
        blocks: B, the samples of the batch.
    """

    steps: tuple[Step, ...]
    by_rule: frozenset[int]
    summed: frozenset[int]
    blocks: int = 1

    @property
    def plain(self) -> bool:
        """Whether torch's engine runs everything."""
        return not self.by_rule

    def gathers(self, use: UseSpec) -> bool:
        """Return whether the cotangents of a use are all there, by sample, when its node's turn comes."""
        return use.node in self.by_rule and all(layout.leading for layout in use.layouts.values())


def find_route(graph: Graph, root: Place, uses: Sequence[UseSpec], keep: Place | None = None) -> Route:
    """Return the route from a root to the uses (and to the place whose cotangents are kept)."""
    wanted = {use.node for use in uses} | ({keep[0]} if keep is not None else set())
    order = [graph.index[node] for node in between(graph, graph.nodes[root[0]], {graph.nodes[k] for k in wanted})]
    ways = {index: _ways(graph, index, frozenset(order)) for index in order}
    by_rule = _by_rule(graph, order, ways)
    summed = frozenset(
        use.node for use in uses if use.node in by_rule and use.name in backward.NORMS and _samples_first(use)
    ) - ({keep[0]} if keep is not None else set())
    norms = _norms_with_relu(graph, by_rule, ways, order, {use.node for use in uses} - summed, keep)
    try:
        return Route(tuple(_steps(graph, order, ways, by_rule, norms)), by_rule, summed, len(graph.output))
    except _NotAloneError:
        return Route((), frozenset(), frozenset())


def between(graph: Graph, root: Node | None, targets: set[Node]) -> list[Node]:
    """Return the nodes on the ways from the root to the targets, by falling depth."""
    order = sorted((n for n in graph.nodes if n.next_functions), key=lambda n: n._sequence_nr())
    leads: set[Node] = set()
    for node in order:
        if node in targets or any(m in leads for m, _ in node.next_functions):
            leads.add(node)
    if root is None or root not in leads:
        return []
    met = {root}
    for node in reversed(order):
        if node in met:
            met.update(m for m, _ in node.next_functions if m in leads)
    return [node for node in reversed(order) if node in met]


def numbered(graph: Graph, nodes: Iterable[Node]) -> bool:
    """Return whether nodes are numbered from the inputs up (graphs put together by hand may not be)."""
    inside = set(nodes)
    return all(m._sequence_nr() < node._sequence_nr() for node in inside for m, _ in node.next_functions if m in inside)


def _ways(graph: Graph, index: int, relevant: Collection[int]) -> dict[int, Place]:
    """Return slot -> place, for the slots of a node that lead to a use."""
    sources = enumerate(graph.nodes[index].next_functions)
    places = {slot: (graph.index[m], j) for slot, (m, j) in sources if m is not None}
    return {slot: place for slot, place in places.items() if place[0] in relevant}


def _by_rule(graph: Graph, order: Sequence[int], ways: Ways) -> frozenset[int]:
    """Return the nodes to run by rule: none where no cotangent goes through a costly one."""

    def costly(indices: Iterable[int]) -> bool:
        return any(graph.nodes[index].name() in backward.COSTLY and ways[index] for index in indices)

    if not costly(order) or not numbered(graph, [graph.nodes[index] for index in order]):
        return frozenset()
    blocks = len(graph.output)
    known = frozenset(index for index in order if backward.supports(graph.nodes[index], tuple(ways[index]), blocks))
    return known if costly(known) else frozenset()


def _samples_first(use: UseSpec) -> bool:
    """Return whether the samples are the blocks of the first axis of a use's only output."""
    layout = use.layouts.get(0)
    return set(use.layouts) == {0} and layout is not None and layout.leading


def _norms_with_relu(
    graph: Graph,
    by_rule: Collection[int],
    ways: Ways,
    order: Sequence[int],
    collected: Collection[int],
    keep: Place | None,
) -> dict[int, int]:
    """Return normalisation -> the ReLU that is all that reads it, where nobody asks for the cotangent in between."""
    readers: dict[int, list[int]] = {}
    for index in order:
        for node, _ in ways[index].values():
            readers.setdefault(node, []).append(index)
    found = {}
    for index in by_rule:
        above = readers.get(index, [])
        wanted = index in collected or (keep is not None and keep[0] == index)
        if graph.nodes[index].name() not in backward.BATCH_NORMS or len(above) != 1 or wanted:
            continue
        if graph.nodes[above[0]].name() == backward.RELU and above[0] in by_rule:
            found[index] = above[0]
    return found


def _steps(
    graph: Graph,
    order: Sequence[int],
    ways: Ways,
    by_rule: Collection[int],
    norms: dict[int, int],
) -> Iterable[Step]:
    """Yield the steps; a normalisation takes the ReLU that follows it along."""
    relus, reach = set(norms.values()), _reach(order, ways)
    for known, members in groupby(order, key=lambda index: index in by_rule):
        if not known:
            yield from _by_engine(graph, list(members), ways, reach)
            continue
        for index in members:
            if graph.nodes[index].name() in backward.NORMS:
                yield Norm(index, norms.get(index), ways[index].get(0))
            elif index not in relus:
                yield Single(index, ways[index])


def _reach(order: Sequence[int], ways: Ways) -> dict[int, int]:
    """Return node -> the set of nodes below it, as bits."""
    reach: dict[int, int] = {}
    for index in reversed(order):
        reach[index] = 0
        for below, _ in ways[index].values():
            reach[index] |= reach[below] | 1 << below
    return reach


def _by_engine(graph: Graph, run: Sequence[int], ways: Ways, reach: Mapping[int, int]) -> Iterator[Step]:
    """Yield the steps of neighbours that are not run by rule.

    torch's engine goes on through an exit where another one lies below, and counts that way twice; the nodes are then
    called one by one.

    Raises:
        _NotAloneError: Among those are nodes that would compute weights' gradients, which nobody asked for, or that
            cannot be called (functions written in Python, such as full backward hooks).
    """
    inside = frozenset(run)
    exits = sorted({place for index in run for place in ways[index].values() if place[0] not in inside})
    if not any(reach[upper] >> lower & 1 for upper, _ in exits for lower, _ in exits):
        yield Engine(inside, tuple(exits))
        return
    if any(graph.nodes[index].name() in _COSTLY or not callable(graph.nodes[index]) for index in run):
        raise _NotAloneError
    yield from (Call(index, ways[index]) for index in run)
