"""Check and time the Triton backend on the GPU of this machine: `make gpu-check`, under 8 minutes, no network.

Builds the extension, runs the tests that need a GPU with the Triton backend forced, times the ops beside plain torch,
and writes `results/<gpu>.json`. Exit codes: 0 done, 1 a test failed or a result was wrong, 2 no GPU.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy import relative_error
from benchmarks.gpu_rows import GpuRow, Run, rows
from twophase_fast.storage.provenance import collect

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SUITE_SECONDS, ALL_SECONDS = 270.0, 450.0
SLACK = 1e-7

Timer = Callable[[Run], float]


def main() -> int:
    """Build, test, time, write; returns the exit code."""
    if not torch.cuda.is_available():
        print("gpu-check needs a CUDA or ROCm GPU, and torch sees none; nothing was run", file=sys.stderr)
        return 2
    started = time.monotonic()
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=ROOT, check=True)
    suite = run_suite()
    device = torch.device("cuda")
    bandwidth = copy_bandwidth(device)
    measured = measure_all(list(rows()), device, started + ALL_SECONDS, bandwidth)
    result = {
        "gpu": torch.cuda.get_device_name(),
        "environment": collect(),
        "suite": suite,
        "copy_bandwidth": bandwidth,
        "rows": measured,
        "seconds": time.monotonic() - started,
    }
    path = RESULTS / file_name(result["gpu"])
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path.relative_to(ROOT)}")
    return 1 if suite["status"] != "passed" or any(row["status"] == "wrong" for row in measured) else 0


def run_suite() -> dict[str, Any]:
    """Run the tests that need a GPU, with the Triton backend forced."""
    side_by_side = ["-n", str(min(8, os.cpu_count() or 1))] if find_spec("xdist") else []  # compiling takes the time
    command = [sys.executable, "-m", "pytest", "-q", *side_by_side, "tests/ops/triton/test_on_gpu.py"]
    environment = {**os.environ, "TWOPHASE_BACKEND": "triton", "TWOPHASE_AUTOTUNE": "0"}
    started = time.monotonic()
    try:
        status = subprocess.run(command, cwd=ROOT, env=environment, timeout=SUITE_SECONDS).returncode
    except subprocess.TimeoutExpired:
        return {"status": "took too long", "seconds": time.monotonic() - started}
    return {"status": "failed" if status else "passed", "seconds": time.monotonic() - started}


def measure_all(todo: list[GpuRow], device: torch.device, deadline: float, bandwidth: float) -> list[dict[str, Any]]:
    """Measure rows until the deadline; those after it are listed as left out."""
    measured = []
    for row in todo:
        late = time.monotonic() > deadline
        measured.append({"name": row.name, "status": "left out"} if late else measure(row, device, seconds, bandwidth))
        print(json.dumps(measured[-1]))
    return measured


def measure(row: GpuRow, device: torch.device, timer: Timer, bandwidth: float) -> dict[str, Any]:
    """Return error and times of one row; what is wrong is not timed."""
    run, peer, truth = row.make(device)
    exact = _tensors(truth())
    error = _error(_tensors(run()), exact)
    allowed = 2 * _error(_tensors(peer()), exact) + SLACK if row.bound is None else row.bound
    found = {"name": row.name, "peer": row.peer, "error": error, "allowed": allowed, "status": "wrong"}
    if not error <= allowed:
        return found
    own, others = timer(run), timer(peer)
    found |= {"status": "timed", "seconds": own, "peer_seconds": others, "times_faster": others / own}
    if row.flops is not None:
        found["useful_flops_per_second"] = row.flops / own
    if row.flops is not None and row.peer_flops is not None:
        found["of_peer_rate"] = (row.flops / own) / (row.peer_flops / others)
    if row.bytes:
        found["of_copy_bandwidth"] = row.bytes / own / bandwidth
    return found


def seconds(run: Run, budget: float = 0.5) -> float:
    """Return the median time of a call on the GPU, after two calls that compile and warm up."""
    run()
    run()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < budget and len(times) < 100):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return sorted(times)[len(times) // 2]


def copy_bandwidth(device: torch.device, elements: int = 256_000_000, timer: Timer = seconds) -> float:
    """Return the bytes per second of a device copy, those read and those written."""
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    return 8.0 * elements / timer(lambda: target.copy_(source))


def file_name(gpu: str) -> str:
    """Return the name of a GPU's results file."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") + ".json"


def _tensors(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _error(got: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    return max(relative_error(value.double(), true.double()) for value, true in zip(got, exact, strict=True))


if __name__ == "__main__":
    raise SystemExit(main())
