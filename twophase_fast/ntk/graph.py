"""Walking the autograd graph of an output."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import torch
from torch.autograd.graph import GradientEdge, Node

ACCUMULATE = "torch::autograd::AccumulateGrad"


Place = tuple[int, int]
"""Position of a node in the graph's fixed order, and the index of one of its outputs."""


@dataclass(frozen=True)
class Graph:
    """Every node that `output` depends on, in a fixed order, with the edges between them.

    Attributes:
        output: The Tensor [N, C] that was walked.
        nodes: Depth-first order from the output; the same program gives the same order for any batch size.
        index: Node -> position in `nodes`.
        consumers: Node -> [(consumer, slot in the consumer, output index of the node)].
        sources: For each node and slot the place that feeds it, or None where nothing with a gradient does.
    """

    output: torch.Tensor
    nodes: list[Node]
    index: dict[Node, int]
    consumers: dict[Node, list[tuple[Node, int, int]]]
    sources: list[tuple[Place | None, ...]]

    @cached_property
    def names(self) -> list[str]:
        """Name of every node."""
        return [node.name() for node in self.nodes]

    @cached_property
    def shapes(self) -> list[tuple[torch.Size, ...]]:
        """Shapes of every node's outputs."""
        return [tuple(torch.Size(meta.shape) for meta in node._input_metadata) for node in self.nodes]

    @cached_property
    def depths(self) -> list[int]:
        """Sequence number of every node; larger ones were recorded later."""
        return [node._sequence_nr() for node in self.nodes]

    @cached_property
    def _used(self) -> list[list[int]]:
        read: list[set[int]] = [set() for _ in self.nodes]
        read[0].add(self.output.output_nr)
        for place in chain.from_iterable(self.sources):
            if place is not None:
                read[place[0]].add(place[1])
        return [sorted(outputs) for outputs in read]

    @cached_property
    def _signature(self) -> list[tuple[str, tuple[Place | None, ...]]]:
        return list(zip(self.names, self.sources))

    def used_outputs(self, node: Node) -> list[int]:
        """Return the output indices of `node` that something reads."""
        return self._used[self.index[node]]

    def around(self, position: int) -> set[int]:
        """Return the positions of the nodes that the output depends on in ways around the node at a position."""
        met, pending = {position, 0}, [0] if position else []
        while pending:
            for place in self.sources[pending.pop()]:
                if place is not None and place[0] not in met:
                    met.add(place[0])
                    pending.append(place[0])
        return met - {position}

    def signature(self) -> list[tuple[str, tuple[Place | None, ...]]]:
        """Return names and edges only: equal for two runs of the same program."""
        return self._signature


def walk(output: torch.Tensor) -> Graph:
    """Return the graph below `output` (which must require grad)."""
    root = output.grad_fn
    index, order, stack = {root: 0}, [root], [root]
    consumers: dict[Node, list[tuple[Node, int, int]]] = defaultdict(list)
    sources: dict[Node, tuple[Place | None, ...]] = {}
    while stack:
        node = stack.pop()
        edges: list[Place | None] = []
        for slot, (upstream, j) in enumerate(node.next_functions):
            if upstream is None:
                edges.append(None)
                continue
            consumers[upstream].append((node, slot, j))
            if upstream not in index:
                index[upstream] = len(order)
                order.append(upstream)
                stack.append(upstream)
            edges.append((index[upstream], j))
        sources[node] = tuple(edges)
    return Graph(output, order, index, dict(consumers), [sources[node] for node in order])


def pull(
    roots: list[GradientEdge], edges: list[GradientEdge], seeds: list[torch.Tensor], *, batched: bool
) -> tuple[torch.Tensor | None, ...]:
    """Return the cotangents at `edges`, [k, ...] each, for seeds [k, *shape] at the roots (k = 1 unless batched)."""
    if batched:
        return torch.autograd.grad(roots, edges, seeds, retain_graph=True, allow_unused=True, is_grads_batched=True)
    grads = torch.autograd.grad(roots, edges, [seed[0] for seed in seeds], retain_graph=True, allow_unused=True)
    return tuple(None if g is None else g.unsqueeze(0) for g in grads)


def output_shape(node: Node, j: int) -> torch.Size:
    """Return the shape of output `j` of `node`."""
    return torch.Size(node._input_metadata[j].shape)
