"""Pulling K cotangents back from a root to the uses, along a route.

Cotangents that are on their way are held as [K, B, *shape] for a node whose output has the shape [B, *shape]; those of
nodes run by rule lie in memory as [B, K, *shape]. They are added up where several arrive, in place where nothing else
reads them, and let go of when their node has run. What arrives at a use is collected by sample:
[N, K, *before, outer, inner, *after].

Hooks on activations (`Tensor.register_hook`) run where torch's engine goes through them, mostly once a cotangent; the
rules pass them by, or call them with a derivative instead of a cotangent. Whether a hook that changes gradients changes
the kernel is therefore not defined; hooks that only look are harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch.autograd.graph import GradientEdge

from twophase_fast._pages import room
from twophase_fast._types import Precision
from twophase_fast.ntk.graph import Graph, Place, pull
from twophase_fast.ntk.route import Call, Engine, Norm, Route, Single, find_route
from twophase_fast.ntk.uses import UseSpec
from twophase_fast.rules import AnyLayout, backward

NORM_SLOTS = {"weight": 1, "bias": 2}


class Start(Protocol):
    """Where a pull-back starts: K cotangents at one place."""

    graph: Graph

    def __len__(self) -> int: ...

    @property
    def place(self) -> Place | None:
        """The place, or None where no gradient flows."""

    def cotangents(self, ks: slice) -> torch.Tensor:
        """Return the cotangents of starts `ks` there, [k, *shape]."""


@dataclass
class Collected:
    """What a pull-back brought.

    Attributes:
        cotangents: Place -> [N, K, *before, outer, inner, *after].
        sums: (node position, slot) -> gradients [N, K, channels] of a normalisation's parameter.
        kept: The cotangents [K, *shape] at the place that was to be kept.
    """

    cotangents: dict[Place, torch.Tensor] = field(default_factory=dict)
    sums: dict[Place, torch.Tensor] = field(default_factory=dict)
    kept: torch.Tensor | None = None


def pull_back(
    start: Start,
    uses: Sequence[UseSpec],
    at_once: int = 1,
    keep: Place | None = None,
    *,
    collect: bool = True,
    precision: Precision = "highest",
    arrived: Callable[[int, Collected], None] | None = None,
) -> Collected:
    """Pull the cotangents of `start` back to the uses.

    Args:
        start: Where they come from.
        uses: Where they go to.
        at_once: Starts pulled back together: in one batched call of torch's engine, or in one call of every rule.
        keep: A place whose cotangents are kept as well.
        collect: Whether to keep anything at all (a pass that is only timed does not).
        precision: Of convolutions that are run by rule.
        arrived: Called with the position of a use as soon as everything has arrived there, where that is before the
            end; it may take things out of what was collected.
    """
    found = Collected()
    root = start.place
    if root is None or not (uses or keep):
        return found
    route = find_route(start.graph, root, uses, keep)
    shelf = _Collector(start.graph, uses, route, keep, len(start), found if collect else None)
    for first in range(0, len(start), at_once):
        ks = slice(first, min(first + at_once, len(start)))
        flow = _Flow(start.graph, route, shelf, ks, precision)
        early = arrived if ks == slice(0, len(start)) else None
        if route.plain:
            flow.through_engine(root, start.cotangents(ks), batched=at_once > 1)
        else:
            for node in flow.along(root, start.cotangents(ks)):
                if early is not None:
                    early(node, found)
    return found


def placeholders(graph: Graph, uses: Sequence[UseSpec], route: Route) -> Collected:
    """Return zeros of the shapes that a pull-back of one output would bring (they take no memory)."""
    found = Collected()
    for use in uses:
        for j, layout in use.layouts.items():
            metadata = graph.nodes[use.node]._input_metadata[j]
            zero = torch.zeros((), dtype=metadata.dtype, device=graph.output.device)
            if use.node not in route.summed:
                found.cotangents[use.node, j] = layout.by_sample(zero.expand(metadata.shape)).unsqueeze(1)
                continue
            for slot in use.slots:
                found.sums[use.node, slot.slot] = zero.expand(metadata.shape[0], 1, metadata.shape[1])
    return found


class _Collector:
    """Puts cotangents in their places."""

    def __init__(
        self,
        graph: Graph,
        uses: Sequence[UseSpec],
        route: Route,
        keep: Place | None,
        count: int,
        found: Collected | None,
    ) -> None:
        self._graph, self._keep, self._count, self._found = graph, keep, count, found
        self._layouts: dict[Place, AnyLayout] = {
            (use.node, j): layout for use in uses if use.node not in route.summed for j, layout in use.layouts.items()
        }
        self._summed = {use.node: {slot.slot for slot in use.slots} for use in uses if use.node in route.summed}

    @property
    def places(self) -> list[Place]:
        """Places whose cotangents are wanted."""
        return [*self._layouts, *([] if self._keep is None or self._keep in self._layouts else [self._keep])]

    def put(self, place: Place, ks: slice, cotangents: torch.Tensor | None) -> None:
        """Keep the cotangents [k, *shape] that arrived at a place (None: zero)."""
        if self._found is None:
            return
        if place == self._keep:
            self._put_kept(ks, cotangents)
        if place in self._layouts:
            self._put_use(place, ks, cotangents)

    def adopt(self, place: Place, ks: slice, cotangents: torch.Tensor) -> bool:
        """Keep the cotangents [B, K, *shape] at a place; returns whether the memory itself is kept."""
        layout = self._layouts.get(place)
        whole = ks.stop - ks.start == self._count
        if self._found is not None and layout is not None and layout.plain and whole:
            if place == self._keep:
                self._put_kept(ks, cotangents.transpose(0, 1))
            self._found.cotangents[place] = cotangents.unsqueeze(2).unsqueeze(2)
            return True
        self.put(place, ks, cotangents.transpose(0, 1))
        return False

    def put_sums(self, node: int, ks: slice, grads: backward.NormGrads) -> None:
        """Keep the gradients [N, k, channels] of a normalisation's parameters."""
        if self._found is None:
            return
        for name, slot in NORM_SLOTS.items():
            if slot in self._summed.get(node, ()):
                part = getattr(grads, name)
                if part.shape[1] == self._count:
                    self._found.sums[node, slot] = part
                    continue
                if (node, slot) not in self._found.sums:
                    self._found.sums[node, slot] = part.new_zeros(len(part), self._count, part.shape[2])
                self._found.sums[node, slot][:, ks] = part

    def _put_kept(self, ks: slice, cotangents: torch.Tensor | None) -> None:
        if self._found.kept is None:
            metadata = self._graph.nodes[self._keep[0]]._input_metadata[self._keep[1]]
            shape = (self._count, *metadata.shape)
            self._found.kept = room(shape, metadata.dtype, self._graph.output.device)
        self._found.kept[ks] = 0 if cotangents is None else cotangents

    def _put_use(self, place: Place, ks: slice, cotangents: torch.Tensor | None) -> None:
        held = self._found.cotangents
        if cotangents is None:
            if place in held:
                held[place][:, ks].zero_()
            return
        for k, one in zip(range(ks.start, ks.stop), cotangents):
            by_sample = self._layouts[place].by_sample(one)
            if place not in held:
                shape = (by_sample.shape[0], self._count, *by_sample.shape[1:])
                held[place] = room(shape, one.dtype, one.device)
                if k:
                    held[place].zero_()
            held[place][:, k].copy_(by_sample)


@dataclass
class _Buffer:
    """Cotangents [K, B, *shape] and how many places read them."""

    tensor: torch.Tensor
    readers: int = 1


class _Flow:
    """One pass of k cotangents along a route."""

    def __init__(self, graph: Graph, route: Route, shelf: _Collector, ks: slice, precision: Precision) -> None:
        self._graph, self._route, self._shelf, self._ks, self._precision = graph, route, shelf, ks, precision
        self._wanted = frozenset(shelf.places)
        self._pending: dict[Place, _Buffer] = {}

    def through_engine(self, root: Place, cotangents: torch.Tensor, *, batched: bool) -> None:
        """Let torch's engine run everything."""
        places = self._shelf.places
        grads = pull([self._edge(root)], [self._edge(p) for p in places], [cotangents], batched=batched)
        for place, grad in zip(places, grads):
            self._shelf.put(place, self._ks, None if grad is None else grad.detach())

    def along(self, root: Place, cotangents: torch.Tensor) -> Iterator[int]:
        """Run the route's steps; yields the positions of the nodes that are done."""
        self._arrive(root, _Buffer(cotangents, readers=2))  # the caller's
        for step in self._route.steps:
            if isinstance(step, Engine):
                self._run_engine(step)
                yield from step.nodes
                continue
            if isinstance(step, Norm):
                self._run_norm(step)
            elif isinstance(step, Call):
                self._run_call(step)
            else:
                self._run_single(step)
            yield step.node

    def _run_single(self, step: Single) -> None:
        place = (step.node, 0)
        buffer = self._take(place)
        if buffer is None:
            return
        sums = {slot: self._owned_room(target) for slot, target in step.targets.items()}
        held = {slot: tensor for slot, tensor in sums.items() if tensor is not None}
        node, g = self._graph.nodes[step.node], buffer.tensor.transpose(0, 1)
        arrival = backward.Arrival(node, g, buffer.readers == 1, tuple(step.targets), held, self._precision)
        results = backward.backward(arrival)
        shared = sum(result is g for result in results.values())
        buffer.readers += shared - 1
        for slot, result in results.items():
            if result is g:
                self._arrive(step.targets[slot], buffer)
            elif held.get(slot) is not result:
                self._arrive(step.targets[slot], _Buffer(result.transpose(0, 1)))

    def _run_norm(self, step: Norm) -> None:
        buffer = self._take((step.node if step.relu is None else step.relu, 0))
        if buffer is None:
            return
        node, g = self._graph.nodes[step.node], buffer.tensor.transpose(0, 1)
        slots = () if step.target is None else (0,)
        arrival = backward.Arrival(node, g, buffer.readers == 1, slots, {})
        grads = backward.norm_backward(arrival, None if step.relu is None else self._graph.nodes[step.relu])
        self._shelf.put_sums(step.node, self._ks, grads)
        buffer.readers -= 1
        if step.target is not None and grads.input is not None:
            self._arrive(step.target, _Buffer(grads.input.transpose(0, 1)))

    def _run_engine(self, step: Engine) -> None:
        """Pull one cotangent after the other through a part of the graph."""
        roots = [place for place in self._pending if place[0] in step.nodes]
        buffers = [self._pending.pop(place) for place in roots]
        wanted = [place for place in self._wanted if place[0] in step.nodes]
        ends = [*wanted, *step.exits]
        edges = [self._edge(place) for place in ends]
        leaving: dict[Place, torch.Tensor] = {}
        for k in range(self._ks.stop - self._ks.start) if roots and ends else ():
            seeds = [buffer.tensor[k : k + 1] for buffer in buffers]
            grads = pull([self._edge(place) for place in roots], edges, seeds, batched=False)
            here = slice(self._ks.start + k, self._ks.start + k + 1)
            for place, grad in zip(ends, grads):
                if place in self._wanted and place[0] in step.nodes:
                    self._shelf.put(place, here, None if grad is None else grad.detach())
                elif grad is not None:
                    if place not in leaving:
                        leaving[place] = self._room(place, zero=k > 0)
                    leaving[place][k] = grad[0].detach()
        self._leave(buffers, leaving)

    def _run_call(self, step: Call) -> None:
        """Call one node for one cotangent after the other."""
        node = self._graph.nodes[step.node]
        outputs = [(step.node, j) for j in range(len(node._input_metadata))]
        buffers = [self._pending.pop(place, None) for place in outputs]
        for place, buffer in zip(outputs, buffers):
            if place in self._wanted:
                self._shelf.put(place, self._ks, None if buffer is None else buffer.tensor)
        leaving: dict[Place, torch.Tensor] = {}
        for k in range(self._ks.stop - self._ks.start) if any(b is not None for b in buffers) else ():
            grads = node(*(None if buffer is None else buffer.tensor[k] for buffer in buffers))
            grads = grads if isinstance(grads, tuple) else (grads,)
            for slot, place in step.targets.items():
                if grads[slot] is not None:
                    if place not in leaving:
                        leaving[place] = self._room(place, zero=True)
                    leaving[place][k] += grads[slot].detach().sum_to_size(leaving[place].shape[1:])
        self._leave(buffers, leaving)

    def _leave(self, buffers: Sequence[_Buffer | None], leaving: dict[Place, torch.Tensor]) -> None:
        """Let go of what was read and send off what came out."""
        for buffer in buffers:
            if buffer is not None:
                buffer.readers -= 1
        for place, tensor in leaving.items():
            self._arrive(place, _Buffer(tensor))

    def _edge(self, place: Place) -> GradientEdge:
        return GradientEdge(self._graph.nodes[place[0]], place[1])

    def _room(self, place: Place, *, zero: bool) -> torch.Tensor:
        """Return room for the cotangents [K, *shape] at a place, which lies in memory as the place's node wants it."""
        metadata = self._graph.nodes[place[0]]._input_metadata[place[1]]
        count, shape = self._ks.stop - self._ks.start, tuple(metadata.shape)
        sizes = (shape[0], count, *shape[1:]) if place[0] in self._route.by_rule else (count, *shape)
        tensor = room(sizes, metadata.dtype, self._graph.output.device)
        tensor = tensor.zero_() if zero else tensor
        return tensor.transpose(0, 1) if place[0] in self._route.by_rule else tensor

    def _arrive(self, place: Place, buffer: _Buffer) -> None:
        """Add cotangents to those that wait at a place."""
        waiting = self._pending.get(place)
        if waiting is None:
            self._pending[place] = buffer
        elif waiting.readers == 1:
            waiting.tensor += buffer.tensor
            buffer.readers -= 1
        elif buffer.readers == 1:
            buffer.tensor += waiting.tensor
            waiting.readers -= 1
            self._pending[place] = buffer
        else:
            self._pending[place] = _Buffer(waiting.tensor + buffer.tensor)
            waiting.readers -= 1
            buffer.readers -= 1

    def _take(self, place: Place) -> _Buffer | None:
        """Return the cotangents at a place by rule, contiguous as [B, K, *shape], after collecting them if wanted."""
        buffer = self._pending.pop(place, None)
        if buffer is None:
            if place in self._wanted:
                self._shelf.put(place, self._ks, None)
            return None
        rows = buffer.tensor.transpose(0, 1)
        if not rows.is_contiguous():
            buffer.readers -= 1
            buffer = _Buffer(rows.contiguous().transpose(0, 1))
        if place in self._wanted and self._shelf.adopt(place, self._ks, buffer.tensor.transpose(0, 1)):
            buffer.readers += 1
        return buffer

    def _owned_room(self, place: Place) -> torch.Tensor | None:
        """Return what waits at a place as [B, K, *shape], where a result may be added to it."""
        waiting = self._pending.get(place)
        if waiting is None or waiting.readers > 1 or place[0] not in self._route.by_rule:
            return None
        rows = waiting.tensor.transpose(0, 1)
        return rows if rows.is_contiguous() else None
