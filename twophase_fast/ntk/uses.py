"""Finding the uses of parameters in a labelled graph.

From each parameter the walk goes up to the first nodes whose cotangents are sorted by sample: these are the uses.
Nodes on the way whose cotangents are not sorted compute tensors from parameters alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.autograd.graph import Node

from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.graph import ACCUMULATE, Graph
from twophase_fast.rules.layout import AnyLayout


@dataclass(frozen=True)
class SlotSpec:
    """A parameter slot of a use: `source` = (node position, output index) feeds it; `leaves` names its parameters."""

    slot: int
    source: tuple[int, int]
    leaves: tuple[str, ...]


@dataclass(frozen=True)
class UseSpec:
    """A use, by its node's position in the graph's fixed order.

    Attributes:
        node: Position of the node.
        name: Name of the node.
        layouts: Output index -> where that output keeps its samples.
        slots: Parameter slots of the node.
    """

    node: int
    name: str
    layouts: dict[int, AnyLayout]
    slots: tuple[SlotSpec, ...]


def find_uses(
    function: Function,
    graph: Graph,
    *,
    is_use: Callable[[Node], bool],
    reached: Callable[[Node], bool],
    check_derived: Callable[[Node], None],
) -> dict[Node, tuple[SlotSpec, ...]]:
    """Return use -> its parameter slots.

    Args:
        function: Names the selected parameters.
        graph: The graph of the output.
        is_use: Whether a node's cotangents are sorted by sample.
        reached: Whether the output may depend on a node at all.
        check_derived: Called on every node between a parameter and its uses; raises where it mixes samples.
    """
    names = {id(p): name for name, p in function.parameters.items()}
    slots: dict[tuple[Node, int, tuple[Node, int]], list[str]] = {}
    for leaf, name in zip(graph.nodes, graph.names):
        if name == ACCUMULATE and id(leaf.variable) in names:
            for key in _frontier(graph, leaf, is_use, reached, check_derived):
                slots.setdefault(key, []).append(names[id(leaf.variable)])
    uses: dict[Node, tuple[SlotSpec, ...]] = {}
    for (node, slot, (source, j)), leaves in slots.items():
        spec = SlotSpec(slot, (graph.index[source], j), tuple(dict.fromkeys(leaves)))
        uses[node] = (*uses.get(node, ()), spec)
    return uses


def _frontier(
    graph: Graph,
    leaf: Node,
    is_use: Callable[[Node], bool],
    reached: Callable[[Node], bool],
    check_derived: Callable[[Node], None],
) -> list[tuple[Node, int, tuple[Node, int]]]:
    """Return (use, slot, source) for every way up from a parameter."""
    found, pending, seen = [], [leaf], {leaf}
    while pending:
        source = pending.pop()
        for node, slot, j in graph.consumers[source]:
            if not reached(node):
                continue
            if is_use(node):
                found.append((node, slot, (source, j)))
            elif node not in seen:
                seen.add(node)
                check_derived(node)
                pending.append(node)
    return found
