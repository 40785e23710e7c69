"""Bytes of a group of parameters at its peak, as the group grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from twophase_fast.ntk.shelf import SMALL_BYTES, WAITING_BYTES

if TYPE_CHECKING:
    from twophase_fast.ntk.sizer import Sizer


@dataclass(frozen=True)
class Shape:
    """How much is done at a time.

    Attributes:
        tile: Samples of one forward pass.
        chunk: Outputs whose factors are held together.
        at_once: Outputs of one pull-back call.
    """

    tile: int
    chunk: int
    at_once: int


class Bytes(NamedTuple):
    """Bytes of one parameter.

    Attributes:
        stored: Its factor, over all samples.
        arrivals: Node position -> bytes of the cotangents that arrive there, per sample and output.
        wide: The Jacobian that is materialised beside the factor.
        narrow: A narrow Jacobian, which is collected with others for one product.
        shrinks: Whether it is materialised, and its cotangents let go of, while the pull-back goes on.
        passing: Whether its factor is complete before the pull-back ends.
        packed: Copies of its factor that a kernel works on.
    """

    stored: int
    arrivals: dict[int, int]
    wide: int
    narrow: int
    shrinks: bool = False
    passing: bool = False
    packed: int = 0


class Meter:
    """Bytes of a group that grows parameter by parameter."""

    def __init__(self, sizer: Sizer, shape: Shape) -> None:
        task = sizer.task
        self._always = sizer.always
        self._base = sizer.transient(0, shape)
        self._per_byte = sizer.transient(1, shape) - self._base
        self._in_place, self._whole = sizer.in_place(shape), shape.tile >= task.samples
        self._adds_at_once = sizer.adds_at_once(shape.tile)
        self._slices = 1 if task.columns is None else 2
        self._largest_slice = sizer.slices(shape)
        self._stored = self._passed = self._arriving = self._passing_most = 0
        self._arrivals: dict[int, int] = {}
        self._passing: dict[int, int] = {}
        self._wide = self._narrow = self._one = self._waiting = 0
        self._per_alive = shape.tile * shape.at_once
        self._alive = sizer.program.alive
        self._flowing = self._per_alive * max((alive.most for alive in self._alive.values()), default=0)
        self._graph = sizer.graph_bytes(shape)

    def add(self, more: Bytes) -> None:
        """Add one parameter."""
        self._stored += more.stored
        arrived = 0 if more.shrinks else self._per_byte * sum(more.arrivals.values())  # is a part of the factor
        one = more.stored - min(arrived, more.stored) + min(self._largest_slice, more.wide) + more.packed
        self._one = max(self._one, one)
        if more.passing:
            alive = [self._alive[node].used for node in more.arrivals if node in self._alive]
            self._flowing = max(self._flowing, self._per_alive * max(alive, default=0) + one)
        if self._in_place and (more.passing if self._adds_at_once else more.shrinks):
            self._passed += more.stored
            self._passing.update(more.arrivals)
            alone = [count for node, count in more.arrivals.items() if node not in self._arrivals]
            self._passing_most = max(self._passing_most, *alone, 0)
        else:
            for node, count in more.arrivals.items():  # parameters of one node share its cotangents
                self._arriving += count - self._arrivals.get(node, 0)
                self._arrivals[node] = count
            if not self._passing.keys().isdisjoint(more.arrivals):
                alone = [count for node, count in self._passing.items() if node not in self._arrivals]
                self._passing_most = max(alone, default=0)
        self._waiting += more.stored if more.stored <= SMALL_BYTES else 0
        self._wide = max(self._wide, more.wide)
        self._narrow += more.narrow

    @property
    def transient(self) -> int:
        """Bytes of one tile's graph and cotangents, and of the factors that are made and used up meanwhile."""
        if self._adds_at_once and self._in_place:
            return self._graph + self._flowing + self._per_byte * self._arriving
        return self._base + self._per_byte * (self._arriving + self._passing_most)

    @property
    def most(self) -> int:
        """Bytes at the peak, less cotangents at cuts; where one tile holds all samples, its own are the factors."""
        if self._adds_at_once:
            last = 0 if self._in_place else self._one
            kept = min(self._waiting, WAITING_BYTES)
            return self._always + self.transient + last + kept + min(self._largest_slice, self._narrow)
        slices = self._slices * min(self._largest_slice, max(self._wide, self._narrow))
        kept = self._passed if self._whole else self._stored
        return self._always + max(kept + self.transient, self._stored + slices)
