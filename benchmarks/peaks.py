"""What the machine can do, measured in the same run: GEMM and memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def best_seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """Shortest of several calls, after one that warms up."""
    function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def gemm_flops(size: int = 2048, dtype: torch.dtype = torch.float32) -> float:
    """Operations per second of torch's matrix product: 2·n³ / time."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / best_seconds(lambda: a @ b)


def read_bandwidth(megabytes: int = 256) -> float:
    """Bytes per second of reading memory far larger than the caches: the better of sum and dot."""
    x, y = (torch.ones(megabytes << 17) for _ in range(2))  # half of the memory each, float32
    return max(x.nbytes / best_seconds(x.sum), 2 * x.nbytes / best_seconds(lambda: torch.dot(x, y)))
