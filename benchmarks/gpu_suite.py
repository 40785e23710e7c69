"""The last stage of `make gpu-check`: the test suite, as far as time allows, with every line kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu_stages import ROOT

SIDE_BY_SIDE = 12
GPU_TESTS = ("tests/ops/triton/test_on_gpu.py", "tests/ntk/test_on_gpu.py")
PARTS = {
    "on the GPU": (GPU_TESTS, {"TWOPHASE_BACKEND": "triton", "TWOPHASE_AUTOTUNE": "0"}),
    "all others": (("tests", *(f"--ignore={path}" for path in GPU_TESTS)), {}),
}
"""Part -> what pytest runs, and variables. Triton is forced where tensors are on the GPU: it refuses others."""

_WORDS = "PASSED|FAILED|ERROR|SKIPPED"


def run_suite(deadline: float, folder: Path) -> dict[str, Any]:
    """Run both parts until `time.monotonic()` is `deadline`; the logs go to `folder`."""
    parts = {name: _run(name, *of, deadline, folder) for name, of in PARTS.items()}
    status = [part["status"] for part in parts.values()]
    return {"status": next((s for s in status if s != "passed"), "passed"), "parts": parts}


def _run(name: str, what: tuple[str, ...], variables: dict[str, str], deadline: float, folder: Path) -> dict[str, Any]:
    workers = min(SIDE_BY_SIDE, os.cpu_count() or 1)
    side_by_side = ["-n", str(workers)] if find_spec("xdist") else []  # compiling takes the time
    options = ["-v", "--tb=short", "-m", "not full", "-p", "no:cacheprovider", *side_by_side]
    log = folder / f"gpu-suite-{name.replace(' ', '-')}.log"
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as lines:
        command = [sys.executable, "-u", "-m", "pytest", *options, *what]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=lines, stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout=max(1.0, deadline - started))
            status = {0: "passed", 5: "passed"}.get(code, "failed")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = "took too long"
    return {"status": status, "seconds": time.monotonic() - started, **counted(log.read_text(errors="replace"))}


def counted(log: str) -> dict[str, Any]:
    """Return how many tests passed, failed and were skipped, and which failed, from pytest's verbose lines."""
    found = [(word, name) for name, word in re.findall(rf"(?m)^(tests/\S+::.+?) ({_WORDS})\b", log)]
    found += re.findall(rf"(?m)^\[gw\d+\] \[ *\d+%\] ({_WORDS}) (tests/\S+::.+?) *$", log)
    names: dict[str, set[str]] = {word: set() for word in _WORDS.split("|")}
    for word, name in found:
        names[word].add(name)
    return {word.lower(): len(of) for word, of in names.items()} | {
        "failures": sorted(names["FAILED"] | names["ERROR"])
    }
