"""What a pull-back brings: cotangents by sample at the uses, and gradients of normalisations' parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from twophase_fast._pages import room
from twophase_fast.ntk.graph import Graph, Place
from twophase_fast.ntk.route import Route
from twophase_fast.ntk.uses import UseSpec
from twophase_fast.rules import AnyLayout, backward

NORM_SLOTS = {"weight": 1, "bias": 2}


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


class Collector:
    """Puts the cotangents that arrive where they are wanted."""

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

    def adopt(self, place: Place, ks: slice, rows: torch.Tensor) -> bool:
        """Keep the cotangents [B, K, *rest] at a place as they are, if that is how they are wanted."""
        layout = self._layouts.get(place)
        whole = ks.stop - ks.start == self._count
        if self._found is None or layout is None or not layout.leading or not whole or place == self._keep:
            return False
        count = self._graph.nodes[place[0]]._input_metadata[place[1]].shape[0] // layout.inner
        if len(rows) != count:
            return False
        self._found.cotangents[place] = (rows.unsqueeze(2) if layout.plain else rows).unsqueeze(2)
        return True

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
