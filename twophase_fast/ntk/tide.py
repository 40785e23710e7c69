"""Bytes of the cotangents that are alive at every step of a pull-back by rule, before it is run.

The steps of a route are gone through as `pullback` does, with sizes instead of tensors: what arrives where cotangents
wait already is added there, a step that may write its result over what arrived does so if nobody else reads that, and
memory is let go of when its last reader has run. What arrives at a use is used up at once, or kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from twophase_fast.ntk.graph import Graph, Place
from twophase_fast.ntk.route import Call, Engine, Norm, Route, Single, Step
from twophase_fast.rules import backward


@dataclass
class _Memory:
    """Bytes that several buffers may read."""

    size: int
    readers: int = 0


class Alive(NamedTuple):
    """Bytes of cotangents.

    Attributes:
        used: While what has arrived at a use is used up.
        most: While the step runs.
    """

    used: int
    most: int


def alive_bytes(
    graph: Graph, route: Route, start: Place, sizes: Mapping[Place, int], kept: Collection[int] = ()
) -> dict[int, Alive]:
    """Return node -> bytes alive at its step, for as much as `sizes` are for (one sample and output, say).

    Args:
        graph: The graph of the route.
        route: Its steps.
        start: Where the cotangents come from.
        sizes: Place -> bytes of the cotangents there.
        kept: Uses whose cotangents are kept beyond the step (and are not counted then).
    """
    tide = _Tide(graph, sizes, frozenset(kept))
    tide.arrive(start, _Memory(sizes[start]))
    found: dict[int, Alive] = {}
    for step in route.steps:
        alive = tide.run(step)
        found.update(dict.fromkeys(_nodes(step), alive))
    return found


class _Tide:
    """What is alive between two steps."""

    def __init__(self, graph: Graph, sizes: Mapping[Place, int], kept: frozenset[int]) -> None:
        self._graph, self._sizes, self._kept = graph, sizes, kept
        self._pending: dict[Place, _Memory] = {}

    def run(self, step: Step) -> Alive:
        """Run one step and return the bytes alive before what it read is let go of."""
        nodes = _nodes(step)
        read = [self._pending.pop(place) for place in [p for p in self._pending if p[0] in nodes]]
        for memory in read:
            memory.readers += not self._kept.isdisjoint(nodes)
        held = {id(m): m.size for m in (*self._pending.values(), *read)}
        arrived = sum(held.values())
        new = [self._result(step, place, read) for place in _targets(step)]
        held |= {id(memory): memory.size for _, memory in new}
        for memory in read:
            memory.readers -= 1
        for place, memory in new:
            self.arrive(place, memory)
        most = sum(held.values())
        return Alive(arrived if isinstance(step, Single) else most, most)

    def arrive(self, place: Place, memory: _Memory) -> None:
        """Add cotangents to those that wait at a place."""
        waiting = self._pending.get(place)
        if waiting is memory or (waiting is not None and waiting.readers == 1):
            return
        if waiting is not None:
            waiting.readers -= 1
            memory = _Memory(self._sizes[place]) if memory.readers else memory
        memory.readers += 1
        self._pending[place] = memory

    def _result(self, step: Step, place: Place, read: list[_Memory]) -> tuple[Place, _Memory]:
        """Return where a result goes and its memory: that of what waits there or of what arrived, where it may be."""
        size, waiting = self._sizes[place], self._pending.get(place)
        products = isinstance(step, Single) and not backward.writes_over(self._graph.nodes[step.node])
        if products and waiting is not None and waiting.readers == 1:
            return place, waiting
        alone = len(read) == 1 and read[0].size == size and not isinstance(step, Engine | Call)
        if alone and (isinstance(step, Norm) or backward.writes_over(self._graph.nodes[step.node])):
            lent = not isinstance(step, Norm) and backward.lends(self._graph.nodes[step.node])
            return place, read[0] if lent or read[0].readers == 1 else _Memory(size)
        return place, _Memory(size)


def _nodes(step: Step) -> frozenset[int]:
    if isinstance(step, Engine):
        return step.nodes
    if isinstance(step, Norm) and step.relu is not None:
        return frozenset((step.node, step.relu))
    return frozenset((step.node,))


def _targets(step: Step) -> list[Place]:
    if isinstance(step, Engine):
        return list(step.exits)
    if isinstance(step, Norm):
        return [] if step.target is None else [step.target]
    return list(step.targets.values())
