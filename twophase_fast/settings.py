"""The only reader of the environment.

| variable | meaning |
|---|---|
| `TWOPHASE_BACKEND` | backend every op uses when none is named: `reference`, `cpu`, or `triton` with what serves GPUs |
| `TWOPHASE_ISA` | highest instruction set in C++: `scalar`, `avx2`, `avx512`, `amx`; `amx-emulated` for tests |
| `TWOPHASE_CACHE_DIR` | folder for calibration and autotuning results (default: `~/.cache/twophase_fast`) |
| `TWOPHASE_AUTOTUNE` | `0`: Triton kernels take default launch configurations; `1` (default): the fastest, timed once |
| `TRITON_INTERPRET` | `1`: Triton kernels take CPU tensors, under Triton's interpreter (slow; for tests) |
"""

from __future__ import annotations

import os
from pathlib import Path

from twophase_fast._types import InputError

_BACKENDS = ("reference", "cpu", "triton")
_YES = ("1", "true", "on", "yes", "y")
_ISAS = ("scalar", "avx2", "avx512", "amx", "amx-emulated")


def _choice(name: str, allowed: tuple[str, ...]) -> str | None:
    value = os.environ.get(name, "").strip().lower()
    if value and value not in allowed:
        raise InputError(
            f"environment variable {name}={value!r} is not one of {', '.join(allowed)}; unset or correct it"
        )
    return value or None


def backend() -> str | None:
    """Return the backend forced by `TWOPHASE_BACKEND`, or None.

    Raises:
        InputError: The variable names no known backend.
    """
    return _choice("TWOPHASE_BACKEND", _BACKENDS)


def isa() -> str | None:
    """Return the instruction set named by `TWOPHASE_ISA`, or None for the best one available.

    Raises:
        InputError: The variable names no known instruction set.
    """
    return _choice("TWOPHASE_ISA", _ISAS)


def autotune() -> bool:
    """Return whether launch configurations may be timed; `TWOPHASE_AUTOTUNE=0` says no.

    Raises:
        InputError: The variable is neither 0 nor 1.
    """
    return _choice("TWOPHASE_AUTOTUNE", ("0", "1")) != "0"


def interpret() -> bool:
    """Return whether `TRITON_INTERPRET` lets Triton kernels run on CPU tensors (read at every call)."""
    return os.environ.get("TRITON_INTERPRET", "").strip().lower() in _YES


def cache_dir() -> Path:
    """Return the folder for cached measurements (not created here)."""
    return Path(os.environ.get("TWOPHASE_CACHE_DIR") or Path.home() / ".cache" / "twophase_fast")
