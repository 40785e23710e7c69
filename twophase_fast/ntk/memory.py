"""Amounts of memory: what is free, and how a user writes them."""

from __future__ import annotations

import os
import re

import torch

from twophase_fast._types import InputError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
DEFAULT_SHARE = 0.5


def parse_bytes(amount: int | float | str | None) -> int | None:
    """Return bytes from a number or text such as "250 MB" or "1.5GiB"; None stays None.

    Raises:
        InputError: Not a positive amount.
    """
    if amount is None:
        return None
    matched = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", str(amount).lower())
    if matched and matched[2] in _UNITS and matched[1].count(".") <= 1 and matched[1] != ".":
        number = int(float(matched[1]) * _UNITS[matched[2]])
        if number > 0:
            return number
    raise InputError(
        f'memory_budget={amount!r}; expected a positive number of bytes or text such as "250 MB" or "4 GiB"'
    )


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            available = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):  # not Linux: half of the physical memory
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
