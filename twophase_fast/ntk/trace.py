"""Following the sample axis from the output down, from what nodes are known to do.

What `labels` finds by pulling cotangents back follows for most graphs from shapes alone: the output keeps its samples
on the first axis, and `rules.samples` says for each node where its inputs keep them. Where every node that reads a
place is known, and all agree, the cotangent there is sorted by sample, whatever the values.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from twophase_fast.ntk.graph import Graph, Place
from twophase_fast.rules.layout import Layout, sample_layout
from twophase_fast.rules.samples import Passage, source_layout


def trace(small: Graph, large: Graph, wanted: Iterable[Place]) -> dict[Place, Layout]:
    """Return the layouts that follow without computing anything.

    Args:
        small: Graph of some samples.
        large: Graph of the same program on more samples.
        wanted: Places of cotangents.

    Returns:
        Place -> layout; left out is what may hold samples otherwise, mix them, or has not grown along that axis.
    """
    found: dict[Place, Layout | None] = {(0, large.output.output_nr): Layout(0)}
    done: set[int] = set()
    inner = [index for index, sources in enumerate(large.sources) if sources]
    for index in sorted(inner, key=large.depths.__getitem__, reverse=True):
        done.add(index)
        edges = enumerate(large.sources[index])
        sources = {slot: place for slot, place in edges if place is not None and grows(small, large, place)}
        shapes = {slot: large.shapes[k][j] for slot, (k, j) in sources.items()}
        for slot, place in sources.items():
            if place[0] in done:
                return {}  # not numbered from the inputs up, as in graphs put together by hand
            layout = _through(large, index, slot, shapes, found)
            found[place] = layout if found.get(place, layout) == layout else None
    return {place: found[place] for place in wanted if found.get(place) in layouts_by_shape(small, large, place)}


def layouts_by_shape(small: Graph, large: Graph, place: Place) -> list[Layout]:
    """Return every layout that explains how the tensor at a place grew."""
    shapes = (graph.shapes[place[0]][place[1]] for graph in (small, large))
    return list(sample_layout(*shapes, small.output.shape[0], large.output.shape[0]))


def grows(small: Graph, large: Graph, place: Place) -> bool:
    """Return whether the tensor at a place grows with the number of samples."""
    index, j = place
    return small.shapes[index][j] != large.shapes[index][j]


def _through(
    graph: Graph, index: int, slot: int, shapes: dict[int, torch.Size], found: dict[Place, Layout | None]
) -> Layout | None:
    """Return the layout at an input of a node, if it follows in the same way from all outputs that are read."""
    node, layouts = graph.nodes[index], set()
    for j in graph.used_outputs(node):
        layout = found.get((index, j))
        if layout is None:
            return None
        layouts.add(source_layout(Passage(node, layout, graph.shapes[index][j], shapes), slot))
    return layouts.pop() if len(layouts) == 1 else None
