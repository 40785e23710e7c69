"""One forward pass and its pull-back: what they keep, what they cost, and where a pull-back can stop and go on.

A *cut* is a place that every way from the outputs down to the remaining uses goes through (the stream between two
layers, say). The cotangents that arrive there are all a later pull-back needs to go on from, so that groups of
parameters cost one pull-back in all and only the forward pass again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch.autograd.graph import Node

from twophase_fast.ntk.graph import Graph
from twophase_fast.ntk.probe import Structure
from twophase_fast.ntk.readout import Readout, root_of, route_of
from twophase_fast.ntk.route import Route, between
from twophase_fast.ntk.tide import Alive, alive_bytes
from twophase_fast.ntk.uses import UseSpec
from twophase_fast.rules import backward


@dataclass(frozen=True)
class Cut:
    """A place in the graph that separates what was pulled back from what was not.

    Attributes:
        node: Position of the node in the graph's fixed order.
        output: Its output whose cotangent is kept.
        depth: Sequence number of the node: uses of at most this depth lie below.
        bytes: Bytes of the cotangent, per sample and output of the model.
    """

    node: int
    output: int
    depth: int
    bytes: int


@dataclass(frozen=True)
class Program:
    """What the planner knows of a forward pass and its pull-back.

    Attributes:
        saved_bytes: Bytes that a forward pass keeps, per sample.
        widest_bytes: Bytes of the largest tensor of the graph, per sample.
        nodes: Number of nodes a pull-back runs.
        cuts: Places to stop and go on, from the outputs down.
        depths: Sequence numbers of the nodes a pull-back runs, ascending.
        below: Share of the pull-back's work at depths up to each of these, starting with 0.
        by_rule: Whether nodes are run by rule, for several outputs in one call (see `route`).
        convolves: Whether convolutions are among them.
        alive: By rule: position of a node -> bytes of the cotangents alive then, per sample and output, where one pass
            takes all outputs and what a use needs is used up as it comes.
    """

    saved_bytes: int
    widest_bytes: int
    nodes: int
    cuts: tuple[Cut, ...]
    depths: tuple[int, ...] = ()
    below: tuple[float, ...] = (0.0,)
    by_rule: bool = False
    convolves: bool = False
    alive: Mapping[int, Alive] = field(default_factory=dict)

    def share(self, start: int | None, end: int) -> float:
        """Return the share of the work between depth `start` (None: the outputs) and depth `end`."""
        top = 1.0 if start is None else self.below[bisect_right(self.depths, start)]
        return max(top - self.below[bisect_right(self.depths, end)], 0.0)

    def cut_above(self, depth: int) -> Cut | None:
        """Return the lowest cut that lies above (or at) `depth`, or None: the outputs."""
        at = bisect_left(self._rising, depth)
        return self.cuts[-1 - at] if at < len(self.cuts) else None

    @cached_property
    def _rising(self) -> list[int]:
        return [cut.depth for cut in reversed(self.cuts)]


def describe(structure: Structure, readout: Readout | None) -> Program:
    """Return the program of a model whose structure is regular."""
    graph, smaller = structure.graph, structure.smaller
    uses = structure.uses if readout is None else readout.uses
    targets = {graph.nodes[use.node] for use in uses}
    root = root_of(graph, readout)
    relevant = between(graph, None if root is None else graph.nodes[root[0]], targets)
    growth = {n: _growth(smaller, graph, graph.index[n]) for n in relevant}
    depths, below = _work(growth)
    widest = max((max(sizes, default=0) for sizes in growth.values()), default=0)
    cuts = tuple(_cuts(graph, relevant, growth))
    route = route_of(structure, readout)
    convolves = any(graph.nodes[node].name() == backward.CONVOLUTION for node in route.by_rule)
    sizes = {(graph.index[node], j): size for node, outputs in growth.items() for j, size in enumerate(outputs)}
    kept = {use.node for use in uses} - passing_uses(uses, route)
    alive = {} if route.plain else alive_bytes(graph, route, root, sizes, kept)
    by_rule = not route.plain
    return Program(structure.saved_bytes, widest, len(relevant), cuts, depths, below, by_rule, convolves, alive)


def passing_uses(uses: Sequence[UseSpec], route: Route) -> set[int]:
    """Return the nodes whose parameters have their whole factor there, before the pull-back goes on."""
    counts = Counter(name for use in uses for name in {name for slot in use.slots for name in slot.leaves})
    return {
        use.node
        for use in uses
        if route.gathers(use) and all(counts[name] == 1 for slot in use.slots for name in slot.leaves)
    }


def widest_program(programs: Sequence[Program]) -> Program:
    """Return one program for both sides of a cross kernel, with the larger sizes where they differ."""
    return max(programs, key=lambda program: program.saved_bytes)


def _growth(small: Graph, large: Graph, index: int) -> list[int]:
    """Return the bytes per sample of every output of a node."""
    samples = large.output.shape[0] - small.output.shape[0]
    sizes = zip(small.shapes[index], large.shapes[index], large.nodes[index]._input_metadata)
    return [(b.numel() - a.numel()) * meta.dtype.itemsize // samples for a, b, meta in sizes]


def _work(growth: dict[Node, list[int]]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return depths, ascending, and the share of the work up to each, taking bytes for work."""
    ascending = sorted(growth, key=lambda node: node._sequence_nr())
    total = sum(sum(growth[node]) for node in ascending) or 1
    below, done = [0.0], 0
    for node in ascending:
        done += sum(growth[node])
        below.append(done / total)
    return tuple(node._sequence_nr() for node in ascending), tuple(below)


def _cuts(graph: Graph, relevant: Iterable[Node], growth: dict[Node, list[int]]) -> list[Cut]:
    """Return every cut that a single cotangent crosses, from the outputs down."""
    found: list[Cut] = []
    pending: set[tuple[Node, int]] = set()
    for position, node in enumerate(relevant):
        depth = node._sequence_nr()
        if any(m._sequence_nr() >= depth for m, _ in node.next_functions if m in growth):
            return []  # not numbered from the inputs up, as in graphs put together by hand
        if position and len(pending) == 1 and next(iter(pending))[0] is node:
            ((_, j),) = pending
            found.append(Cut(graph.index[node], j, depth, growth[node][j]))
        pending = {edge for edge in pending if edge[0] is not node}
        pending.update((m, j) for m, j in node.next_functions if m in growth)
    return found
