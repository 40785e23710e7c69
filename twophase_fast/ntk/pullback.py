"""Pulling K cotangents back from a root to the uses, along a route.

Cotangents that are on their way are held block by block, [B, K, *rest] (`rules.backward`), where the first axis of a
tensor cannot be cut into a block for each of the B samples as one block; those of nodes run by rule lie in memory in
that order, the others as [K, *shape]. They are added up where several arrive, in place where nothing else reads them,
and let go of when their node has run. What arrives at a use is collected by sample:
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
from twophase_fast.ntk.collector import Collected, Collector
from twophase_fast.ntk.graph import Graph, Place, pull
from twophase_fast.ntk.route import Call, Engine, Norm, Route, Single, find_route
from twophase_fast.ntk.uses import UseSpec
from twophase_fast.rules import backward


class Start(Protocol):
    """Where a pull-back starts: K cotangents at one place."""

    graph: Graph

    def __len__(self) -> int: ...

    @property
    def place(self) -> Place | None:
        """The place, or None where no gradient flows."""

    def cotangents(self, ks: slice) -> torch.Tensor:
        """Return the cotangents of starts `ks` there, [k, *shape]."""


def pull_back(
    start: Start,
    uses: Sequence[UseSpec],
    at_once: int = 1,
    keep: Place | None = None,
    *,
    collect: bool = True,
    precision: Precision = "highest",
    batched: bool = True,
    arrived: Callable[[int, Collected], None] | None = None,
) -> Collected:
    """Pull the cotangents of `start` back to the uses.

    Args:
        start: Where they come from.
        uses: Where they go to.
        at_once: Starts pulled back together: in one batched call of torch's engine, or in one call of every rule.
        keep: A place whose cotangents are kept as well.
        collect: Whether to keep anything at all (a pass that is only timed does not).
        precision: Of convolutions and products that are run by rule.
        batched: Whether torch's engine, where it runs everything, may pull several starts back in one call.
        arrived: Called with the position of a node as soon as everything has arrived there, where that is before the
            end; it may take things out of what was collected, and what it has used up by then is written over.
    """
    found = Collected()
    root = start.place
    if root is None or not (uses or keep):
        return found
    route = find_route(start.graph, root, uses, keep)
    shelf = Collector(start.graph, uses, route, keep, len(start), found if collect else None)
    for first in range(0, len(start), at_once):
        ks = slice(first, min(first + at_once, len(start)))
        flow = _Flow(start.graph, route, shelf, ks, precision)
        early = arrived if ks == slice(0, len(start)) else None
        if route.plain:
            together = batched and at_once > 1
            for part in [ks] if together else [slice(k, k + 1) for k in range(ks.start, ks.stop)]:
                flow.through_engine(root, start.cotangents(part), part, batched=together)
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


@dataclass
class _Memory:
    """How many buffers (and shelves) read the same memory."""

    readers: int = 1


@dataclass
class _Buffer:
    """Cotangents [B, K, *rest] in memory that others may read too.

    Attributes:
        rows: The cotangents.
        memory: Counts the readers.
        adopted: Whether the collector is one of them.
    """

    rows: torch.Tensor
    memory: _Memory = field(default_factory=_Memory)
    adopted: bool = False


class _Flow:
    """One pass of k cotangents along a route."""

    def __init__(self, graph: Graph, route: Route, shelf: Collector, ks: slice, precision: Precision) -> None:
        self._graph, self._route, self._shelf, self._ks, self._precision = graph, route, shelf, ks, precision
        self._count = ks.stop - ks.start
        self._wanted = frozenset(shelf.places)
        self._pending: dict[Place, _Buffer] = {}

    def through_engine(self, root: Place, cotangents: torch.Tensor, ks: slice, *, batched: bool) -> None:
        """Let torch's engine run everything."""
        places = self._shelf.places
        grads = pull([self._edge(root)], [self._edge(p) for p in places], [cotangents], batched=batched)
        for place, grad in zip(places, grads):
            self._shelf.put(place, ks, None if grad is None else grad.detach())

    def along(self, root: Place, cotangents: torch.Tensor) -> Iterator[int]:
        """Run the route's steps; yields the positions of nodes once everything has arrived there."""
        self._arrive(root, _Buffer(self._as_rows(root, cotangents), _Memory(2)))  # the caller's
        for step in self._route.steps:
            if isinstance(step, Engine):
                self._run_engine(step)
                yield from step.nodes
                continue
            if isinstance(step, Single):
                outputs = range(backward.outputs_of(self._graph.nodes[step.node]))
                buffers = [self._take((step.node, j)) for j in outputs]
                yield step.node
                self._run_single(step, buffers)
                del buffers  # which would hold their memory until the next ones have arrived
                continue
            if isinstance(step, Norm):
                self._run_norm(step)
            else:
                self._run_call(step)
            yield step.node

    def _run_single(self, step: Single, buffers: Sequence[_Buffer | None]) -> None:
        node = self._graph.nodes[step.node]
        arrived = [buffer for buffer in buffers if buffer is not None]
        if not arrived or not step.targets:
            return
        for buffer in arrived:
            if buffer.adopted and not self._kept(buffer, arrived):
                buffer.memory.readers -= 1
        sums = {slot: self._owned_room(target) for slot, target in step.targets.items()}
        held = {slot: rows for slot, rows in sums.items() if rows is not None}
        gs = tuple(None if buffer is None else buffer.rows for buffer in buffers)
        owned = len(buffers) == 1 and arrived[0].memory.readers == 1
        blocks = backward.Blocks(self._route.blocks)
        arrival = backward.Arrival(node, gs, owned, tuple(step.targets), held, blocks, self._precision)
        for slot, result in backward.backward(arrival).items():
            if held.get(slot) is not result:
                self._arrive(step.targets[slot], _beside(result, arrived))
        for buffer in arrived:
            buffer.memory.readers -= 1

    def _run_norm(self, step: Norm) -> None:
        buffer = self._take((step.node if step.relu is None else step.relu, 0))
        if buffer is None:
            return
        node, slots = self._graph.nodes[step.node], () if step.target is None else (0,)
        owned = buffer.memory.readers == 1
        arrival = backward.Arrival(node, (buffer.rows,), owned, slots, {}, backward.Blocks(self._route.blocks))
        grads = backward.norm_backward(arrival, None if step.relu is None else self._graph.nodes[step.relu])
        self._shelf.put_sums(step.node, self._ks, grads)
        if step.target is not None and grads.input is not None:
            self._arrive(step.target, _beside(grads.input, [buffer]))
        buffer.memory.readers -= 1

    def _run_engine(self, step: Engine) -> None:
        """Pull one cotangent after the other through a part of the graph."""
        roots = [place for place in self._pending if place[0] in step.nodes]
        buffers = [self._pending.pop(place) for place in roots]
        wanted = [place for place in self._wanted if place[0] in step.nodes]
        ends = [*wanted, *step.exits]
        edges = [self._edge(place) for place in ends]
        leaving: dict[Place, torch.Tensor] = {}
        for k in range(self._count) if roots and ends else ():
            seeds = [self._one(place, buffer.rows, k) for place, buffer in zip(roots, buffers)]
            grads = pull([self._edge(place) for place in roots], edges, seeds, batched=False)
            here = slice(self._ks.start + k, self._ks.start + k + 1)
            for place, grad in zip(ends, grads):
                if place in self._wanted and place[0] in step.nodes:
                    self._shelf.put(place, here, None if grad is None else grad.detach())
                elif grad is not None:
                    if place not in leaving:
                        leaving[place] = self._room(place, zero=k > 0)
                    leaving[place][:, k] = self._as_rows(place, grad.detach())[:, 0]
        self._leave(buffers, leaving)

    def _run_call(self, step: Call) -> None:
        """Call one node for one cotangent after the other."""
        node = self._graph.nodes[step.node]
        outputs = [(step.node, j) for j in range(len(node._input_metadata))]
        buffers = [self._pending.pop(place, None) for place in outputs]
        for place, buffer in zip(outputs, buffers):
            if place in self._wanted:
                self._shelf.put(place, self._ks, None if buffer is None else self._plain(place, buffer.rows))
        leaving: dict[Place, torch.Tensor] = {}
        for k in range(self._count) if any(b is not None for b in buffers) else ():
            given = [None if b is None else self._one(place, b.rows, k)[0] for place, b in zip(outputs, buffers)]
            seeds = [None if one is None else one.contiguous() for one in given]  # hooks do not run
            grads = node(*seeds)
            grads = grads if isinstance(grads, tuple) else (grads,)
            for slot, place in step.targets.items():
                if grads[slot] is not None:
                    if place not in leaving:
                        leaving[place] = self._room(place, zero=True)
                    grad = grads[slot].detach().sum_to_size(self._shape(place))
                    leaving[place][:, k] += self._as_rows(place, grad.unsqueeze(0))[:, 0]
        self._leave(buffers, leaving)

    def _leave(self, buffers: Sequence[_Buffer | None], leaving: dict[Place, torch.Tensor]) -> None:
        """Let go of what was read and send off what came out."""
        for buffer in buffers:
            if buffer is not None:
                buffer.memory.readers -= 1
        for place, rows in leaving.items():
            self._arrive(place, _Buffer(rows))

    def _edge(self, place: Place) -> GradientEdge:
        return GradientEdge(self._graph.nodes[place[0]], place[1])

    def _shape(self, place: Place) -> tuple[int, ...]:
        return tuple(self._graph.nodes[place[0]]._input_metadata[place[1]].shape)

    def _cut(self, place: Place) -> backward.Blocks:
        """Return how the tensor at a place is cut into blocks; as one block where that does not go."""
        cut = backward.blocks_of(self._graph.nodes[place[0]], self._route.blocks)
        return cut if cut.fit(self._shape(place)) else backward.Blocks(1)

    def _as_rows(self, place: Place, cotangents: torch.Tensor) -> torch.Tensor:
        """Return the view [B, K, *rest] of cotangents [K, *shape]."""
        return self._cut(place).cut_each(cotangents)

    def _plain(self, place: Place, rows: torch.Tensor) -> torch.Tensor:
        """Return cotangents [B, K, *rest] as [K, *shape]."""
        return self._cut(place).join_each(rows, self._shape(place))

    def _one(self, place: Place, rows: torch.Tensor, k: int) -> torch.Tensor:
        """Return one of the cotangents, [1, *shape]."""
        return self._plain(place, rows[:, k : k + 1])

    def _room(self, place: Place, *, zero: bool) -> torch.Tensor:
        """Return room for the cotangents [B, K, *rest] at a place, lying in memory as the place's node wants it."""
        metadata = self._graph.nodes[place[0]]._input_metadata[place[1]]
        shape, by_rule, cut = self._shape(place), place[0] in self._route.by_rule, self._cut(place)
        sizes = (cut.count, self._count, *cut.rest(shape)) if by_rule else (self._count, *shape)
        tensor = room(sizes, metadata.dtype, self._graph.output.device)
        tensor = tensor.zero_() if zero else tensor
        return tensor if by_rule else cut.cut_each(tensor)

    def _arrive(self, place: Place, buffer: _Buffer) -> None:
        """Add cotangents to those that wait at a place."""
        waiting = self._pending.get(place)
        if waiting is None:
            self._pending[place] = buffer
        elif waiting.memory.readers == 1:
            waiting.rows += buffer.rows
            buffer.memory.readers -= 1
        elif buffer.memory.readers == 1:
            buffer.rows += waiting.rows
            waiting.memory.readers -= 1
            self._pending[place] = buffer
        else:
            self._pending[place] = _Buffer(torch.add(waiting.rows, buffer.rows, out=_like(waiting.rows)))
            waiting.memory.readers -= 1
            buffer.memory.readers -= 1

    def _take(self, place: Place) -> _Buffer | None:
        """Return the cotangents at a place by rule, in the order that its rule wants, after collecting them."""
        buffer = self._pending.pop(place, None)
        if buffer is None:
            if place in self._wanted:
                self._shelf.put(place, self._ks, None)
            return None
        strided = backward.takes_strided(self._graph.nodes[place[0]])
        if not strided and not buffer.rows.is_contiguous():
            buffer.memory.readers -= 1
            buffer = _Buffer(_like(buffer.rows).copy_(buffer.rows))
        if place in self._wanted:
            if self._shelf.adopt(place, self._ks, buffer.rows):
                buffer.memory.readers += 1
                buffer.adopted = True
            else:
                self._shelf.put(place, self._ks, self._plain(place, buffer.rows))
        return buffer

    def _kept(self, buffer: _Buffer, arrived: Sequence[_Buffer]) -> bool:
        """Return whether tensors other than those on their way hold the memory of what arrived."""
        storage = buffer.rows.untyped_storage()
        ours: dict[int, torch.Tensor] = {}
        for one in (*self._pending.values(), *arrived):
            if one.rows.untyped_storage()._cdata == storage._cdata:
                base = one.rows._base  # of a view, which keeps it alive
                ours |= {id(tensor): tensor for tensor in (one.rows, base) if tensor is not None}
        return torch._C._storage_Use_Count(storage._cdata) > len(ours) + 1  # and this look at it

    def _owned_room(self, place: Place) -> torch.Tensor | None:
        """Return what waits at a place as [B, K, *rest], where a result may be added to it."""
        waiting = self._pending.get(place)
        if waiting is None or waiting.memory.readers > 1 or place[0] not in self._route.by_rule:
            return None
        return waiting.rows if waiting.rows.is_contiguous() else None


def _like(rows: torch.Tensor) -> torch.Tensor:
    """Return contiguous room for as many cotangents."""
    return room(rows.shape, rows.dtype, rows.device)


def _beside(rows: torch.Tensor, arrived: Sequence[_Buffer]) -> _Buffer:
    """Return a rule's result as a buffer: of the memory of what arrived where it is a view of that."""
    storage = rows.untyped_storage()._cdata  # tensors that wrap others have no address
    for buffer in arrived:
        if buffer.rows.untyped_storage()._cdata == storage:
            buffer.memory.readers += 1
            return _Buffer(rows, buffer.memory)
    return _Buffer(rows)
