"""The child that computes kernels with neural-tangents: `python -m benchmarks.jax_side THREADS`.

Requests: `prepare` (model, output, implementation, kernel: the file to write) compiles, computes once and answers with
the seconds and peak memory of that; `run` computes again and answers with the seconds it took.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.child import serve
from benchmarks.resident import peak_increase


class Answers:
    """Remembers the compiled kernel between requests."""

    run: Callable[[], np.ndarray]

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request."""
        return {"prepare": self._prepare, "run": self._run}[request.pop("do")](**request)

    def _prepare(self, model: str, output: str, implementation: int, kernel: str) -> dict[str, Any]:
        from benchmarks.jax_side.kernel import compiled

        self.run = compiled(model, output, implementation)
        started = time.perf_counter()
        value, peak = peak_increase(self.run)
        seconds = time.perf_counter() - started
        np.save(kernel, value)
        return {"peak_bytes": peak, "seconds": seconds}

    def _run(self) -> dict[str, Any]:
        started = time.perf_counter()
        self.run()
        return {"seconds": time.perf_counter() - started}


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):  # XLA makes as many threads as there are cores to run on
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
    serve(Answers())
