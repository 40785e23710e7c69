"""One kernel whose plan is made: run again and again, recorded in a CUDA graph, and looked at kernel by kernel."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.gpu_items import Note
from benchmarks.gpu_measure import finish
from twophase_fast._types import Precision
from twophase_fast.ntk.computation import Computation
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.guards import preserved
from twophase_fast.ntk.inputs import make_batch
from twophase_fast.ntk.parameters import select_parameters
from twophase_fast.ops._triton.tables import as_if_recorded

ROUNDS, REPLAYS = 7, 20
LISTED = 15
"""GPU kernels that are listed, the longest first."""


def prepared(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor | None,
    output: str,
    precision: Precision,
    device: torch.device,
    note: Note,
) -> dict[str, Any]:
    """Time the block of all samples with the plan made beforehand."""
    function = Function(model, None, select_parameters(model, None))
    sides = [None if side is None else make_batch(side, None, name="x", device=device) for side in (x, y)]
    with preserved(model, device):
        computation = Computation(function, *sides, output, None, None, precision=precision)
        started = time.perf_counter()
        plan = computation.prepare()
        finish(device)
        found: dict[str, Any] = {"plan_seconds": time.perf_counter() - started, "plan": str(plan).splitlines()[1:]}
        rows, columns = next(computation.blocks())
        found["blocks"] = plan.blocks
        found["warm_seconds"] = plan.blocks * _median(lambda: computation.block(rows, columns), device, ROUNDS)
        note(found)
        if device.type == "cuda":
            found |= _longest(lambda: computation.block(rows, columns))
            note(found)
            found |= _recorded(computation, rows, columns, device)
    return found


def _median(run: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Return the median seconds of a call, host and device together, after one that does not count."""
    times = []
    for _ in range(rounds + 1):
        finish(device)
        started = time.perf_counter()
        run()
        finish(device)
        times.append(time.perf_counter() - started)
        if sum(times) > 3 and len(times) > 1:
            break
    return median(times[1:])


def _longest(run: Callable[[], object]) -> dict[str, Any]:
    """Return where the GPU's time goes: kernel, milliseconds and calls; or why the profiler does not tell."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    try:
        with torch.profiler.profile(activities=activities) as profile:
            run()
            torch.cuda.synchronize()
    except RuntimeError as error:
        return {"profile_error": (str(error) or type(error).__name__).splitlines()[0]}
    events = [e for e in profile.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=lambda e: -e.self_device_time_total)
    listed = [[e.key[:120], round(e.self_device_time_total / 1e3, 4), e.count] for e in events[:LISTED]]
    return {"gpu_seconds": sum(e.self_device_time_total for e in events) / 1e6, "longest_kernels": listed}


def _recorded(computation: Computation, rows: slice, columns: slice, device: torch.device) -> dict[str, Any]:
    """Record the block in a CUDA graph and time its replays, whose result must be that of the block."""
    try:
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream), as_if_recorded():
            expected = computation.enqueue(rows, columns)[0][""].clone()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            kernels, checks = computation.enqueue(rows, columns)
        replayed = _median(graph.replay, device, REPLAYS)
    except Exception as error:  # whatever cannot be recorded: the other figures stand
        return {"graph_error": f"{type(error).__name__}: {error}".splitlines()[0]}
    checks.settle()
    same = torch.equal(kernels[""], expected)
    return {"graph_seconds": replayed} if same else {"graph_error": "a replay gave another kernel"}
