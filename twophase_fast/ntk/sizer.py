"""Bytes and rough seconds of the ways to compute one block of samples: what the planner chooses from.

peak = kernels + factors of one group (all samples of the block) + cotangents at cuts
+ max(one tile's graph and cotangents, Jacobian slices)

Where one tile holds all samples on a CPU, blocks are added as the factors come:

peak = kernels + the tile's graph and cotangents + the largest factor and its Jacobian slice
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from twophase_fast.ntk.calibration import Rates
from twophase_fast.ntk.cost import PACKED_WIDTH, Method, Sizes
from twophase_fast.ntk.meter import Bytes, Meter, Shape
from twophase_fast.ntk.plan import MIB, Group, Plan, Task
from twophase_fast.ntk.program import Cut, Program
from twophase_fast.ntk.survey import Profile

_TILES = (2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2)
_CHUNKS = (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
_AT_ONCE = (16, 4)  # outputs in one batched pull-back
_PACKED_BYTES = 32 * MIB  # of a factor's copies, at most
_ORDERS = 6  # times the largest weight is what libraries and kernels hold of it in other orders and transformed
_USABLE = 0.92  # of a budget: predictions are not exact
_LEAST_SLICES = 64 * MIB  # enough for long products on a CPU
_FRAGMENTS = 1.1  # what the allocator holds, relative to what was asked for (measured: 1.07 to 1.2)
_ROUNDING = 1e-9  # of sums of seconds
_FORWARD = 0.7  # one forward pass relative to one pull-back of one output


@dataclass(frozen=True)
class _Machine:
    """What the choice among plans rests on; `timing` measures what `Plan.seconds` says.

    Attributes:
        tile: Samples of one forward pass, at most.
        transient_bytes: Of one tile; larger ones are no faster.
        slice_bytes: Of materialised Jacobians at a time.
        node_seconds: Fixed cost of one node in a pull-back.
        batched_nodes: The same under a batched call of torch's engine, relatively.
        nodes_by_rule: The same by rule.
        flowing: Tensors of the largest size alive while cotangents flow, through convolutions among others.
        flowing_elsewhere: The same in programs without convolutions.
        library_bytes: Work areas of the kernels, of BLAS and of the threads.
        weight_rate: Bytes per second of weights, which are read once per call.
        rate: Bytes per second of activations that are pulled back.
        flops: Per second.
        kept_rate: Bytes per second of factors that are kept for those of later tiles.
    """

    tile: int
    transient_bytes: int
    slice_bytes: int
    node_seconds: float
    batched_nodes: float
    nodes_by_rule: float
    flowing: int
    flowing_elsewhere: int
    library_bytes: int
    weight_rate: float
    rate: float
    flops: float
    kept_rate: float


_CPU = _Machine(256, 512 * MIB, 256 * MIB, 15e-6, 4.0, 8.0, 2, 2, 4 * MIB, 1e10, 2.5e9, 1e11, 1e9)
_GPU = _Machine(2048, 8192 * MIB, 1024 * MIB, 12e-6, 2.0, 8.0, 5, 2, 96 * MIB, 1e12, 1e12, 2e13, 1e12)
"""Rough rates of a data-centre GPU, from data sheets; not measured.

A node by rule costs the host what it costs with a CPU. What comes back through a convolution is memory of cuDNN's, also
where it is then added to what another branch brought, and more may wait for a branch that comes later: five tensors,
counted on a residual network. cuBLAS has 32 MiB of work area a stream.
"""


class Sizer:
    """Predicts bytes and time for tiles, chunks of outputs and groups of parameters of one block of samples."""

    def __init__(
        self,
        profiles: Sequence[Profile],
        task: Task,
        program: Program,
        budget: int,
        *,
        batched: bool,
        rates: Rates,
        carried: Mapping[str, str],
    ) -> None:
        self.profiles, self.task, self.program, self.budget = list(profiles), task, program, budget
        self.batched, self.rates, self.carried = batched, rates, carried
        self._bytes: dict[int, list[Bytes]] = {}
        self._methods: dict[tuple[Sizes, int], Method] = {}
        self.machine = _GPU if task.asynchronous else _CPU
        self.slice_bytes = min(self.machine.slice_bytes, max(budget // 6, 1))
        read = [p.sizes for p in self.profiles if p.sizes.kind != "lookup"]
        flops = sum(2.0 * sizes.positions * sizes.elements for sizes in read)
        weights = task.itemsize * sum(sizes.elements for sizes in read)
        self._once = program.saved_bytes / self.machine.rate + flops / self.machine.flops
        self._node = self.machine.node_seconds * program.nodes + weights / self.machine.weight_rate
        largest = max((sizes.elements for sizes in read), default=0)
        self.always = task.kernel_bytes + self.machine.library_bytes + _ORDERS * largest * task.itemsize
        lowest = min((p.bottom for p in self.profiles), default=None)
        self._least_share = 1.0 if lowest is None else program.share(None, lowest)

    def with_budget(self, budget: int) -> Sizer:
        """Return the same with another budget."""
        other = Sizer(
            self.profiles, self.task, self.program, budget, batched=self.batched, rates=self.rates, carried=self.carried
        )
        other._bytes, other._methods = self._bytes, self._methods  # which no budget changes
        return other

    def best(self, tile: int | None, like: Plan | None = None, limit: float = math.inf) -> tuple[Plan | None, float]:
        """Return the fastest plan that fits and takes at most `limit` seconds, and its predicted time.

        With `like`, only plans with as many outputs at a time are looked at. Among equally fast plans the one with the
        larger tile (then chunk, then calls) is taken.
        """
        shapes = [s for s in self._shapes(tile) if like is None or (s.chunk, s.at_once) == (like.chunk, like.at_once)]
        found: tuple[float, int, tuple[Group, ...]] | None = None
        least = limit
        for bound, position in sorted((self._least_seconds(shape), k) for k, shape in enumerate(shapes)):
            if bound > least:
                break
            groups = self.groups(shapes[position], least)
            seconds = math.inf if groups is None else self.seconds(groups, shapes[position])
            if groups is not None and seconds <= limit and (found is None or (seconds, position) < found[:2]):
                found, least = (seconds, position, groups), seconds
        return (None, math.inf) if found is None else (self._plan(shapes[found[1]], found[2]), found[0])

    def _shapes(self, tile: int | None) -> list[Shape]:
        largest = max(self.task.rows, self.task.columns or 0)
        most = largest if self.adds_at_once(largest) else min(largest, self.machine.tile)
        tiles = [tile] if tile else [t for t in dict.fromkeys((largest, *_TILES)) if t <= most] or [largest]
        classes = self.task.classes
        chunks = [classes, *(c for c in _CHUNKS if c < classes and self.task.output != "full")]
        most = [classes] if self.program.by_rule else []
        together = [a for a in (*most, *_AT_ONCE) if self.batched]
        shapes = [Shape(t, c, a) for t, c in product(tiles, chunks) for a in {1, *(min(a, c) for a in together)}]
        return sorted(shapes, key=lambda s: (-s.tile, -s.chunk, -s.at_once))

    def _plan(self, shape: Shape, groups: tuple[Group, ...]) -> Plan:
        sizes = dict(zip((p.name for p in self.profiles), self.bytes_of(shape.chunk)))
        peak = 0
        for group in groups:
            meter = Meter(self, shape)
            for name in group.names:
                meter.add(sizes[name])
            peak = max(peak, self.peak(meter.most, shape, group.start, group.keep))
        side = max(self.task.rows, self.task.partners)
        how = (shape.tile, shape.chunk, shape.at_once, groups, {}, self.slices(shape), peak)
        others = self.always + self.graph_bytes(shape)
        return Plan(self.task, side, *how, by_rule=self.program.by_rule, array_bytes=max(peak - others, 0))

    def bytes_of(self, chunk: int) -> list[Bytes]:
        """Bytes of every parameter, where `chunk` outputs are pulled back together."""
        if chunk not in self._bytes:
            methods = {p.name: self._method(p, chunk) for p in self.profiles}
            self._bytes[chunk] = [self._measure(p, chunk, methods) for p in self.profiles]
        return self._bytes[chunk]

    def _method(self, profile: Profile, chunk: int) -> Method:
        key, task = (profile.sizes, chunk), self.task
        if key not in self._methods:
            self._methods[key] = profile.sizes.choose(task.output, chunk, task.rows, task.partners, self.rates)
        return self._methods[key]

    def _measure(self, profile: Profile, chunk: int, methods: Mapping[str, Method]) -> Bytes:
        if methods.get(self.carried.get(profile.name, "")) == "factored":
            return Bytes(0, profile.arrivals, 0, 0, passing=profile.passing)
        task, elements = self.task, profile.sizes.elements
        each = profile.stored_bytes(chunk, task.itemsize)
        jacobian = elements * chunk * task.itemsize * task.rows
        smaller = methods[profile.name] == "materialise" and jacobian <= each * task.rows
        wide = elements > PACKED_WIDTH
        if methods[profile.name] != "materialise":
            jacobian = 0
        elif wide and smaller:
            jacobian = 0  # the Jacobian itself is kept
        wide_bytes, narrow_bytes = (jacobian, 0) if wide else (0, jacobian)
        passing = profile.passing and smaller, profile.passing
        stored = each * task.samples
        packed = min(stored, _PACKED_BYTES) if methods[profile.name] == "factored" else 0
        return Bytes(stored, profile.arrivals, wide_bytes, narrow_bytes, *passing, packed)

    def at_cuts(self, chunk: int, start: Cut | None, keep: Cut | None) -> int:
        """Bytes of the cotangents at cuts: those kept replace those used up, tile by tile."""
        return self.task.samples * chunk * max((cut.bytes for cut in (start, keep) if cut is not None), default=0)

    def slices(self, shape: Shape) -> int:
        """Largest slice of a Jacobian: on a CPU those that come after the last tile need no more than that tile did."""
        if self.task.asynchronous:
            return self.slice_bytes
        return min(self.slice_bytes, max(_LEAST_SLICES, self.transient(0, shape)))

    def adds_at_once(self, tile: int) -> bool:
        """Whether blocks are added as factors come, which are not kept then."""
        return tile >= self.task.samples and not self.task.asynchronous

    def in_place(self, shape: Shape) -> bool:
        """Whether rules write cotangents where they stay."""
        return self.program.by_rule and shape.at_once == shape.chunk

    def transient(self, per_output: int, shape: Shape) -> int:
        """Bytes of one tile's graph and cotangents, where the group pulls back `per_output` bytes per sample.

        Cotangents that just arrived are there twice, unless the rules wrote them where they stay; and a tile of one
        sample may have to run as two.
        """
        alive = self.machine.flowing if self.program.convolves else self.machine.flowing_elsewhere
        flowing = alive * self.program.widest_bytes * shape.at_once
        cotangents = (shape.chunk + (0 if self.in_place(shape) else shape.at_once)) * per_output
        return self.graph_bytes(shape) + self._tile(shape) * (flowing + cotangents)

    def graph_bytes(self, shape: Shape) -> int:
        """Bytes of one tile's graph."""
        return self._tile(shape) * (self.program.saved_bytes + 2 * self.program.widest_bytes)

    def _tile(self, shape: Shape) -> int:
        return max(shape.tile, min(2, self.task.samples))

    def groups(self, shape: Shape, limit: float = math.inf) -> tuple[Group, ...] | None:
        """Return the fewest groups of neighbours that fit.

        None where one parameter alone does not fit, or so many groups take more than `limit` seconds.
        """
        if self._one_group_fits(shape):
            return (Group(tuple(p.name for p in self.profiles)),)
        groups: list[Group] = []
        first, start = 0, None
        while first < len(self.profiles):
            if self._least_seconds(shape, len(groups) + 1) > limit:
                return None
            last, keep = self._extend(first, start, shape)
            if last is None:
                return None
            members = self.profiles[first:last]
            end = min(p.bottom for p in members)
            share = self.program.share(start and start.depth, min(end, keep.depth) if keep else end)
            groups.append(Group(tuple(p.name for p in members), start, keep, share))
            first, start = last, keep or start
        return tuple(groups)

    def _one_group_fits(self, shape: Shape) -> bool:
        meter = Meter(self, shape)
        for size in self.bytes_of(shape.chunk):
            meter.add(size)
        return self._fits(meter, shape)

    def _extend(self, first: int, start: Cut | None, shape: Shape) -> tuple[int | None, Cut | None]:
        """Return the end of the longest group that starts at profile `first`, and the cut it keeps."""
        meter, most = Meter(self, shape), []
        for size in self.bytes_of(shape.chunk)[first:]:
            meter.add(size)
            if not self._fits(meter, shape):
                break  # a longer group takes no less
            most.append(meter.most)
        for last in range(first + len(most), first, -1):
            keep = self.program.cut_above(self.profiles[last].depth) if last < len(self.profiles) else None
            if keep is not None and start is not None and keep.depth >= start.depth:
                keep = None
            if self.peak(most[last - first - 1], shape, start, keep) <= _USABLE * self.budget:
                return last, keep
        return None, None

    def _fits(self, meter: Meter, shape: Shape) -> bool:
        """Whether a group fits where nothing is kept at cuts, with a tile that is not wastefully large."""
        small = shape.tile <= 2 or self.adds_at_once(shape.tile) or meter.transient <= self.machine.transient_bytes
        return small and self.peak(meter.most, shape, None, None) <= _USABLE * self.budget

    def peak(self, most: int, shape: Shape, start: Cut | None, keep: Cut | None) -> int:
        """Bytes at the peak of a group that takes `most` bytes beside the cotangents at cuts."""
        library = self.machine.library_bytes
        return int(_FRAGMENTS * (self.at_cuts(shape.chunk, start, keep) + most - library)) + library

    def seconds(self, groups: Sequence[Group], shape: Shape) -> float:
        """Return a rough time for forwards, pull-backs and keeping factors, good enough to compare plans."""
        forward, pull = self._pass_seconds(shape)
        return self._keeping_seconds(shape) + sum(forward + group.share * pull for group in groups)

    def _least_seconds(self, shape: Shape, groups: int = 1) -> float:
        """Return what so many groups do not go below: a forward pass each, and pull-backs that share the work."""
        forward, pull = self._pass_seconds(shape)
        least = self._keeping_seconds(shape) + groups * forward + self._least_share * pull
        return least * (1 - _ROUNDING)

    def _keeping_seconds(self, shape: Shape) -> float:
        """Return the seconds it takes to write factors where they wait for those of the other tiles."""
        if self.adds_at_once(shape.tile):
            return 0.0
        chunks = -(-self.task.classes // shape.chunk)
        return chunks * sum(size.stored for size in self.bytes_of(shape.chunk)) / self.machine.kept_rate

    def _pass_seconds(self, shape: Shape) -> tuple[float, float]:
        """Return the seconds of all forward passes of a group, and of a whole pull-back."""
        task = self.task
        chunks = -(-task.classes // shape.chunk)
        tiles = sum(-(-side // shape.tile) for side in (task.rows, task.columns or 0))
        calls = tiles * chunks * -(-shape.chunk // shape.at_once)
        doubled = 2.0 if shape.tile == 1 and task.samples > 1 else 1.0
        forward = tiles * chunks * self._node + task.samples * chunks * self._once * _FORWARD
        slower = self.machine.batched_nodes if shape.at_once > 1 else 1.0
        slower = self.machine.nodes_by_rule if self.program.by_rule else slower
        return doubled * forward, doubled * (calls * self._node * slower + task.samples * task.classes * self._once)

    def smallest(self, tile: int | None) -> int:
        """Return the smallest budget that works, in bytes."""
        low, high = 0, 1
        while self.with_budget(high).best(tile)[0] is None:
            low, high = high, 2 * high
        while high - low > max(high // 100, 1):
            middle = (low + high) // 2
            fits = self.with_budget(middle).best(tile)[0] is not None
            low, high = (low, middle) if fits else (middle, high)
        return high
