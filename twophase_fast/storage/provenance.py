"""Where numbers come from: versions, hardware in words, git revision, time and precision. No host names, no paths."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from twophase_fast.storage import spec


def collect() -> dict[str, Any]:
    """Describe the program and machine of this writing session.

    Returns:
        Plain nested values: `time` (UTC, ISO 8601), `format_version`, `versions`, `hardware`, `git`, `precision`.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "format_version": spec.version_text(),
        "versions": _versions(),
        "hardware": _hardware(),
        "git": _git(os.getcwd()),
        "precision": _precision(),
    }


def _versions() -> dict[str, str]:
    try:
        own = metadata.version("twophase_fast")
    except metadata.PackageNotFoundError:
        own = "not installed (run from the source tree)"
    return {
        "twophase_fast": own,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
    }


def _hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "logical_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _precision() -> dict[str, Any]:
    return {
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "float32_matmul": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


@cache
def _git(folder: str) -> dict[str, Any] | None:
    """Revision of the working folder when it was first asked for; None without git or a checkout."""
    revision = _ask_git(folder, "rev-parse", "HEAD")
    if revision is None:
        return None
    return {"revision": revision, "modified": bool(_ask_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _ask_git(folder: str, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", folder, *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, or no answer: there is no revision
        return None
    return answer.stdout.strip()
