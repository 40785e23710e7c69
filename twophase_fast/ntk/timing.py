"""Predicting the seconds of a plan: one timed pass of one tile, and the measured throughputs of the ops.

    seconds = probe + capture + Gram
    capture = forwards + pull-backs of all tiles and groups (from one pass), Jacobians built, factors put away
    Gram    = per parameter its FLOPs over the throughput of its method at its size

For a named device, which is not at hand, FLOPs and bytes over its published rates stand in for measurements.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from twophase_fast._types import InputError
from twophase_fast.ntk.calibration import Rates, calibrate, finish
from twophase_fast.ntk.capture import Seeds
from twophase_fast.ntk.plan import Plan
from twophase_fast.ntk.program import Program
from twophase_fast.ntk.pullback import pull_back
from twophase_fast.ntk.readout import FeatureSeeds
from twophase_fast.ntk.survey import Profile

if TYPE_CHECKING:
    from twophase_fast.ntk.computation import Computation

_LONG = 0.5  # seconds after which a pass is not repeated
_COPIES = 1.5  # times a cotangent is written on its way to its factor's place
_FORWARD_PULL = 2.0  # FLOPs per weight, position and sample of a forward pass, and of a pull-back of one output


@dataclass(frozen=True)
class Device:
    """Published rates of a device.

    Attributes:
        memory: Bytes.
        flops: Dense float32 FLOP/s outside tensor cores.
        bandwidth: Bytes per second of its memory.
        link: Bytes per second to other devices.
        efficiency: Share of the rates that is assumed to be reached.
    """

    memory: int
    flops: float
    bandwidth: float
    link: float
    efficiency: float = 0.6


DEVICES = {
    "a100-40gb": Device(40 * 10**9, 19.5e12, 1.55e12, 3e11),
    "a100-80gb": Device(80 * 10**9, 19.5e12, 2.0e12, 3e11),
    "h100-80gb": Device(80 * 10**9, 67e12, 3.35e12, 4.5e11),
    "h200-141gb": Device(141 * 10**9, 67e12, 4.8e12, 4.5e11),
}
"""Data sheets of NVIDIA's SXM parts."""


def device_named(name: str) -> Device:
    """Return a device's rates.

    Raises:
        InputError: There is no such profile.
    """
    if name not in DEVICES:
        raise InputError(f"profile={name!r} is unknown; use None (this machine) or one of {', '.join(DEVICES)}")
    return DEVICES[name]


@dataclass(frozen=True)
class _Pass:
    """Seconds of one tile's forward pass and of one pull-back call, and how both depend on its samples."""

    forward: float
    pull: float


def predict(
    computation: Computation,
    profiles: Sequence[Profile],
    program: Program,
    *,
    profile: str | None = None,
) -> Plan:
    """Return the computation's plan with seconds, for as many devices as share the kernel.

    Args:
        computation: Has been planned.
        profiles: What the plan was made of.
        program: Likewise.
        profile: Name in `DEVICES`, or None for this machine, where one tile is run.
    """
    plan = computation.info.plan
    device, world_size = None if profile is None else device_named(profile), plan.task.shares
    rates = calibrate(computation.function.device) if device is None else _flat_rates(device)
    one = _timed_pass(computation) if device is None else _modelled_pass(plan, profiles, program, device)
    by_name = {p.name: p for p in profiles}
    rows = tuple(
        replace(row, seconds=_row_seconds(plan, row.method, by_name[row.name], rates, row.name in computation.partners))
        for row in plan.rows
    )
    captured = _capture_seconds(plan, profiles, one, rates)
    if computation.ready is not None and device is None:
        captured = max(captured - one.forward, 0.0)  # which the probe ran
    stages = {
        "probe": computation.info.seconds["probe"] if device is None else 3 * one.forward,
        "capture": captured / world_size,
        "gram": sum(row.seconds for row in rows) / world_size,
    }
    if device is not None and world_size > 1:
        moved = sum(row.stored_bytes for row in rows) * (world_size - 1) / world_size
        stages["exchange"] = moved / (device.link * device.efficiency)
    name = (profile or "this machine") if world_size == 1 else f"{world_size} x {profile or 'this machine'}"
    return replace(plan, rows=rows, seconds=sum(stages.values()), stages=stages, profile=name)


def _row_seconds(plan: Plan, method: Any, profile: Profile, rates: Rates, merged: bool) -> float:
    """Return the seconds of one parameter's Gram block, its Jacobian included where one is built."""
    if merged:
        return 0.0  # a bias that rides along with its weight
    task, sizes = plan.task, profile.sizes
    samples = min(plan.side, task.rows), min(plan.side, task.partners)
    seconds = sizes.gram_seconds(method, task.output, task.classes, *samples, rates) * task.pairs
    if method == "materialise":
        times = plan.blocks if plan.side < task.rows else 1
        per_sample = sizes.build_seconds(task.classes, rates)
        seconds += per_sample * (task.samples if times == 1 else 2 * plan.side * times)
    return seconds * (2.0 if task.itemsize == 8 else 1.0)


def _capture_seconds(plan: Plan, profiles: Sequence[Profile], one: _Pass, rates: Rates) -> float:
    """Return the seconds of all forwards and pull-backs, and of putting the cotangents away."""
    task = plan.task
    if plan.side < task.rows:
        tiles = 2 * plan.blocks * math.ceil(plan.side / plan.tile)
        samples = 2 * plan.blocks * plan.side
    else:
        tiles = sum(math.ceil(n / plan.tile) for n in (task.rows, task.columns or 0))
        samples = task.samples
    whole = samples / min(plan.tile, task.rows)  # tiles, the last one counted by its size
    tiles = (tiles + whole) / 2
    calls = sum(math.ceil((c.stop - c.start) / plan.at_once) for c in plan.chunks)
    arrivals: dict[int, int] = {}
    for profile in profiles:
        arrivals.update(profile.arrivals)
    put_away = _COPIES * sum(arrivals.values()) * samples * task.classes / rates.at("copy", 1)
    passes = sum(len(plan.chunks) * one.forward + group.share * calls * one.pull for group in plan.groups)
    return tiles * passes + put_away


def _timed_pass(computation: Computation) -> _Pass:
    """Time the forward pass of one tile and one pull-back call."""
    plan, function = computation.info.plan, computation.function
    structure, readout = computation.structures[0], computation.readout
    size = min(plan.tile, computation.left.size)
    batch = computation.left.take(slice(0, size))
    graph, forward = _timed(lambda: function.graph(batch), function.device)
    uses = structure.uses if readout is None else readout.uses
    if graph.signature() != structure.signature:  # a single sample may run another program; it is run twice then
        batch = computation.left.take(torch.zeros(2, dtype=torch.long, device=function.device))
        graph, forward = _timed(lambda: function.graph(batch), function.device)
    directions = computation.rows_of(plan.chunks[0])[: plan.at_once]
    if readout is None:
        seeds: Any = Seeds(graph, directions)
    else:
        seeds = FeatureSeeds(graph, readout, readout.features(graph)[0], directions)
    _, pull = _timed(
        lambda: pull_back(seeds, uses, plan.at_once, collect=False, batched=not plan.by_rule), function.device
    )
    return _Pass(forward, pull)


def _timed(run: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """Return the result and the seconds of the faster of two runs, or of one that takes long."""
    fastest = math.inf
    for _ in range(3):
        started = time.perf_counter()
        result = run()
        finish(device)
        fastest = min(fastest, time.perf_counter() - started)
        if fastest > _LONG:
            break
    return result, fastest


def _flat_rates(device: Device) -> Rates:
    """Return one rate for all sizes: no kernel was measured there."""
    flops = ((1.0, device.flops * device.efficiency),)
    return Rates(flops, flops, flops, flops, flops, ((1.0, device.bandwidth * device.efficiency),))


def _modelled_pass(plan: Plan, profiles: Sequence[Profile], program: Program, device: Device) -> _Pass:
    """Return a pass from FLOPs and bytes."""
    weights = sum(p.sizes.positions * p.sizes.elements for p in profiles if p.sizes.kind in ("outer", "conv"))
    flops = _FORWARD_PULL * weights * plan.tile / device.flops
    traffic = program.saved_bytes * plan.tile / device.bandwidth
    once = (flops + traffic) / device.efficiency
    return _Pass(once, once * plan.at_once)
