"""Peak memory of a function in this process (Linux only)."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
Result = TypeVar("Result")


def peak_increase(function: Callable[[], Result]) -> tuple[Result, int | None]:
    """Call a function once.

    Returns:
        Its result, and the highest resident set during the call less the resident set just before, in bytes; None
        where the system does not tell.
    """
    if not CLEAR.exists():
        return function(), None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    CLEAR.write_text("5")  # start the high-water mark anew
    result = function()
    return result, max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024
