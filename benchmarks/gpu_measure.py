"""Timing one call on a GPU, and checking what it computed before."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from benchmarks.accuracy import relative_error
from benchmarks.gpu_rows import GpuRow, Run

SLACK = 1e-7
FLUSHED = 256 * 2**20
"""Bytes written between two timed calls, so that none finds its inputs in the GPU's second-level cache."""
LEAST, MOST = 5, 50
"""Timed calls."""
HOST_CALLS = 10

Timer = Callable[[Run], float]


def measure(row: GpuRow, device: torch.device, timer: Timer, bandwidth: float | None) -> dict[str, Any]:
    """Measure error and times of one row; what is wrong is not timed."""
    run, peer, truth = row.make(device)
    exact = _tensors(truth())
    error = _error(_tensors(run()), exact)
    allowed = 2 * _error(_tensors(peer()), exact) + SLACK if row.bound is None else row.bound
    found = {"name": row.name, "peer": row.peer, "error": error, "allowed": allowed, "status": "wrong"}
    del exact
    if not error <= allowed:
        return found
    own, others = timer(run), timer(peer)
    found |= {"status": "timed", "seconds": own, "peer_seconds": others, "times_faster": others / own}
    found["host_seconds"] = host_seconds(run, device)
    if row.flops is not None:
        found["useful_flops_per_second"] = row.flops / own
    if row.flops is not None and row.peer_flops is not None:
        found["of_peer_rate"] = (row.flops / own) / (row.peer_flops / others)
    if row.bytes and bandwidth:
        found["of_copy_bandwidth"] = row.bytes / own / bandwidth
    return found


def seconds(run: Run, budget: float = 0.3) -> float:
    """Return the median time of a call on the GPU, after two calls that compile and warm up.

    All calls are put on the stream before the first is waited for, with a pass over `FLUSHED` bytes before each: the
    host runs ahead, so that its own time does not count unless a call takes it longer than the GPU.
    """
    run()
    once = _elapsed(run, 1)[0]
    times = sorted(_elapsed(run, max(LEAST, min(MOST, int(budget / max(once, 1e-6))))))
    return times[len(times) // 2]


def host_seconds(run: Run, device: torch.device) -> float:
    """Return the host's own time of a call: what it takes to put it on the stream."""
    finish(device)
    started = time.perf_counter()
    for _ in range(HOST_CALLS):
        run()
    spent = time.perf_counter() - started
    finish(device)
    return spent / HOST_CALLS


def finish(device: torch.device) -> None:
    """Wait until a device has done everything it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: torch.device, elements: int = 256_000_000, timer: Timer = seconds) -> float:
    """Return the bytes per second of a device copy, those read and those written."""
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    return 8.0 * elements / timer(lambda: target.copy_(source))


@cache
def _flushed() -> torch.Tensor:
    return torch.empty(FLUSHED, dtype=torch.int8, device="cuda")


def _elapsed(run: Run, count: int) -> list[float]:
    """Return the seconds of so many calls."""
    pairs = []
    for _ in range(count):
        _flushed().zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in pairs]


def _tensors(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _error(got: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    return max(relative_error(value.double(), true.double()) for value, true in zip(got, exact, strict=True))
