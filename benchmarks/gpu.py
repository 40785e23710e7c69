"""Check and time the Triton backend on the GPU of this machine: `make gpu-check`, under 8 minutes, no network.

| stage | what | at most |
|---|---|---|
| smoke | every op, dtype and precision once, against float64, in processes side by side | 60 s |
| compile | what the next two stages launch, in processes side by side | 75 s |
| ops | the ops beside the GPU's library and a device copy | 100 s |
| models | whole kernels beside torch.func | 130 s |
| suite | the test suite, first what forces Triton on the GPU | what is left |

Meanwhile the C++ extension is built. Everything found is in `results/<gpu>.json` (and, where the variable `OUT` names a
folder, there) as soon as it is known. Exit codes: 0 done, 1 something was wrong or failed, 2 no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_stages import ROOT, Stage, StageError
from benchmarks.gpu_suite import run_suite
from twophase_fast.storage.provenance import collect

RESULTS = Path(__file__).parent / "results"
ALL_SECONDS = 465.0
LIMITS = {"smoke": 60.0, "compile ops": 50.0, "compile models": 45.0, "ops": 100.0, "models": 130.0}
SIDE_BY_SIDE = 8
CLOCKS = "clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,power.draw,power.limit,driver_version"
BAD = ("wrong", "failed", "took too long")


def main(arguments: list[str] | None = None) -> int:
    """Run all stages; returns the exit code."""
    asked = _parser().parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("gpu-check needs a CUDA or ROCm GPU, and torch sees none; nothing was run", file=sys.stderr)
        return 2
    started = time.monotonic()
    deadline = started + asked.seconds
    gpu = torch.cuda.get_device_name() if asked.device == "cuda" else asked.device
    results = Results(gpu, _folders(asked.out))
    build = None if asked.small else _start_build()
    with tempfile.TemporaryDirectory(prefix="twophase-gpu-") as cache:
        run_stages(results, asked, deadline, Path(cache))
        results.set("build", _built(build))
        if "suite" in asked.stages:
            results.set("suite", run_suite(deadline, results.folders[-1]))
    results.set("seconds", time.monotonic() - started)
    print(results.summary())
    return 1 if results.bad() else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = ("smoke", "ops", "models", "suite")
    parser.add_argument("stages", nargs="*", default=stages, help=f"some of {', '.join(stages)}; default: all")
    parser.add_argument("--device", default="cuda", help="cpu: a rehearsal under TRITON_INTERPRET=1")
    parser.add_argument("--small", action="store_true", help="sizes for a rehearsal")
    parser.add_argument("--seconds", type=float, default=ALL_SECONDS, help="for everything")
    parser.add_argument("--out", type=Path, help="folder for the results, instead of benchmarks/results")
    return parser


def _folders(out: Path | None) -> list[Path]:
    """Return where results go: the folder of results, and the one that `OUT` names."""
    named = os.environ.get("OUT")
    return [out or RESULTS, *([Path(named)] if named and out is None else [])]


class Results:
    """What was found so far, on disk after every change.

    Args:
        gpu: Name of the GPU.
        folders: Where the file is written.
    """

    def __init__(self, gpu: str, folders: list[Path]) -> None:
        self.folders, self._lock = folders, threading.Lock()
        self._all: dict[str, Any] = {"gpu": gpu, "environment": {**collect(), "triton": _version("triton")}}
        self._name = file_name(gpu)
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)

    def set(self, name: str, value: Any) -> None:
        """Note one thing."""
        with self._lock:
            self._all[name] = value
            self._write()

    def item(self, stage: str, name: str, found: dict[str, Any]) -> None:
        """Note what is known of an item of a stage."""
        with self._lock:
            rows = self._all.setdefault(stage, {})
            before = rows.get(name, {}).get("status")
            rows[name] = dict(found)
            self._write()
            if found.get("status") not in (before, "unfinished"):
                print(line_of(stage, name, found), flush=True)

    def bad(self) -> list[str]:
        """Return what was wrong or failed."""
        rows = {f"{s}: {n}": r for s in ("smoke", "ops", "models") for n, r in self._all.get(s, {}).items()}
        parts = {f"suite: {n}": part for n, part in self._all.get("suite", {}).get("parts", {}).items()}
        return [name for name, row in (rows | parts).items() if row.get("status") in BAD]

    def summary(self) -> str:
        """Return the most telling lines."""
        rows = [(stage, n, row) for stage in ("ops", "models") for n, row in self._all.get(stage, {}).items()]
        lines = [line_of(*row) for row in rows] + [f"bad: {name}" for name in self.bad()]
        wrote = ", ".join(str(folder / self._name) for folder in self.folders)
        return "\n".join([*lines, f"wrote {wrote} after {self._all.get('seconds', 0):.0f} s"])

    def _write(self) -> None:
        text = json.dumps(self._all, indent=1, default=str) + "\n"
        for folder in self.folders:
            temporary = folder / f".{self._name}.tmp"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(folder / self._name)


_SHOWN = (
    "error", "seconds", "peer_seconds", "host_seconds", "of_peer_rate", "of_copy_bandwidth", "whole_call_seconds",
    "warm_seconds", "gpu_seconds", "graph_seconds", "graph_error", "target_seconds", "times_faster", "error_text",
    "extrapolated_60000x50000_minutes", "bytes_per_second", "peer_error",
)  # fmt: skip


def line_of(stage: str, name: str, found: dict[str, Any]) -> str:
    """Return an item in one line."""
    values = {key: found[key] for key in _SHOWN if key in found}
    shown = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={str(v)[:160]}" for k, v in values.items())
    return f"{stage}: {name}: {found.get('status', '?')} {shown}"


def run_stages(results: Results, asked: argparse.Namespace, deadline: float, cache: Path) -> None:
    """Run the stages that use the GPU alone, each inside its time."""
    options = ["--device", asked.device, *(["--small"] if asked.small else [])]
    fixed = {"TWOPHASE_AUTOTUNE": "0", "TWOPHASE_CACHE_DIR": str(cache / "kept"), "OMP_NUM_THREADS": "2"}
    timed = {**fixed, "TWOPHASE_AUTOTUNE": "1"}
    thrown = {"TWOPHASE_CACHE_DIR": str(cache / "thrown")}  # what is timed side by side is not to be believed
    several, half = (1, 1) if asked.small else (SIDE_BY_SIDE, SIDE_BY_SIDE // 2)
    plan = [
        ("smoke", Stage("smoke", options, fixed, several)),
        ("compile ops", Stage("ops", options, timed | thrown, several, warm=True)),
        ("ops", Stage("ops", options, timed)),
        ("compile models", Stage("models", options, fixed | thrown, half, warm=True)),
        ("models", Stage("models", options, fixed)),
    ]
    for name, stage in plan:
        if stage.name in asked.stages:
            _run_stage(results, name, stage, deadline)


def _run_stage(results: Results, name: str, stage: Stage, deadline: float) -> None:
    """Run one stage and note how long it took and the GPU's clocks around it."""
    started, clocks = time.monotonic(), [_clocks()]

    def found(item: str, what: dict[str, Any]) -> None:
        """Keep what is found, unless it was only compiled."""
        if not stage.warm:
            results.item(stage.name, item, what)

    status = "ended"
    try:
        if not stage.run(min(deadline, started + LIMITS[name]), found):
            status = "ran out of time"
    except StageError as error:
        status = f"could not start: {error}"
    about = {"status": status, "seconds": time.monotonic() - started, "clocks": [*clocks, _clocks()]}
    results.set(f"stage {name}", about)
    print(f"stage {name}: {status[:300]} after {about['seconds']:.0f} s", flush=True)


def _clocks() -> dict[str, str] | None:
    """Return what nvidia-smi says of clocks, temperature and power; None where there is none."""
    command = ["nvidia-smi", f"--query-gpu={CLOCKS}", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return dict(zip(CLOCKS.split(","), said.stdout.strip().split(", "))) if said.returncode == 0 else None


def _start_build() -> subprocess.Popen[bytes]:
    """Start building the C++ extension beside the stages that do not need it."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _built(build: subprocess.Popen[bytes] | None) -> str:
    """Wait for the extension, and say what became of it."""
    if build is None:
        return "not asked for"
    try:
        status = build.wait(timeout=60)
    except subprocess.TimeoutExpired:
        build.kill()
        return "took too long"
    done = list((ROOT / "twophase_fast").glob(f"_C*{sys.implementation.cache_tag.split('-')[-1]}*"))
    return "built" if done else f"not built (status {status}); the tests run with the reference backend"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def file_name(gpu: str) -> str:
    """Return the name of a GPU's results file."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") + ".json"


if __name__ == "__main__":
    raise SystemExit(main())
