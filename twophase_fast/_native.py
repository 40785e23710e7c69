"""The only importer of the C++ extension `twophase_fast._C`: is it there, which instructions, how many threads.

torch is imported first, so that the extension finds torch's OpenMP runtime already loaded and shares it. After
a fork the OpenMP threads of the parent are gone and waiting for them would hang, so a forked child runs serially.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch

from twophase_fast import settings

try:
    from twophase_fast import _C  # type: ignore[attr-defined]

    _import_error: ImportError | None = None
except ImportError as error:
    _C = None
    _import_error = error

_available: tuple[str, ...] = () if _C is None else tuple(_C.available_isas())

_matrix_units: tuple[str, ...] = () if _C is None else tuple(_C.available_matrix_units())

ISAS = ("scalar", "avx2", "avx512", "amx")
"""Instruction-set tiers, from the oracle upwards."""

EMULATED = "amx-emulated"
"""The matrix unit in plain C++, on any processor; runs only where `TWOPHASE_ISA` names it."""

_forked = False
_warned = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def missing() -> str | None:
    """Return why the extension cannot be used, or None if it can; warns the first time that it cannot."""
    if _C is not None:
        return None
    reason = f"the C++ extension is not available ({_import_error})"
    _warn_once(reason)
    return reason


def _warn_once(reason: str) -> None:
    global _warned
    if _warned:
        return
    _warned = True
    warnings.warn(
        f"twophase_fast: {reason}; the slower reference backend is used. Install a C++ compiler (g++ or "
        "clang++) and reinstall with 'pip install -v --force-reinstall --no-deps .', which prints why a build fails.",
        RuntimeWarning,
        stacklevel=2,
    )


def isa() -> str:
    """Return the instruction-set tier of the next call: the best available up to `TWOPHASE_ISA`."""
    available = available_isas()
    named = settings.isa()
    highest = named if named in ISAS else ISAS[-1]
    return [tier for tier in available if ISAS.index(tier) <= ISAS.index(highest)][-1]


def available_isas() -> tuple[str, ...]:
    """Return the tiers compiled in and supported by this processor, ascending; empty without the extension."""
    return _available


def matrix_unit() -> str | None:
    """Return who multiplies operands split into bfloat16 parts, or None where nothing gains from splitting them.

    `"amx"` on a processor that has it, unless `TWOPHASE_ISA` stays below; `"amx-emulated"` where that names it.
    """
    if _C is not None and settings.isa() == EMULATED:
        return EMULATED
    return "amx" if available_isas() and isa() == "amx" else None


def available_matrix_units() -> tuple[str, ...]:
    """Return the matrix units that work here, the emulated ones (same bits, slow) after the real one."""
    return _matrix_units


def threads() -> int:
    """Return the number of threads that a kernel uses: torch's, or 1 in a forked child."""
    return 1 if _forked else torch.get_num_threads()


def call(function: str, *arguments: Any) -> Any:
    """Call a kernel of the extension with the tier and the number of threads of this moment."""
    return getattr(_C, function)(*arguments, isa(), threads())


def call_split(function: str, *arguments: Any) -> Any:
    """Call a kernel on split operands with the matrix unit, which there must be, and the number of threads."""
    return getattr(_C, function)(*arguments, matrix_unit(), threads())
