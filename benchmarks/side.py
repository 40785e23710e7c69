"""A child that computes with the package of one checkout: `python -P benchmarks/side.py ROOT THREADS`.

Only public names of the package are used, so that ROOT may be of another revision than this file. Requests:
`kernel` (workload, precision, target) and `op` (op, inputs, target) compute once and write what came out; `run`
computes again and answers with the seconds it took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Answers:
    """Remembers the computation between requests."""

    compute: Callable[[], Any]

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request."""
        return {"kernel": self._kernel, "op": self._op, "run": self._run}[request.pop("do")](**request)

    def _kernel(self, workload: str, precision: str, target: str) -> dict[str, Any]:
        import twophase_fast as tp
        from benchmarks.workloads import WORKLOADS

        row = WORKLOADS[workload]
        model, x = row.build()
        return self._first(lambda: tp.entk(model, x, output=row.output, precision=precision), target)

    def _op(self, op: str, inputs: str, target: str) -> dict[str, Any]:
        import torch

        from twophase_fast import ops

        arguments = torch.load(inputs)
        return self._first(lambda: getattr(ops, op)(**arguments), target)

    def _first(self, compute: Callable[[], Any], target: str) -> dict[str, Any]:
        import torch

        self.compute = compute
        result = compute()
        torch.save(result if isinstance(result, torch.Tensor) else vars(result), target)
        return {}

    def _run(self) -> dict[str, Any]:
        started = time.perf_counter()
        self.compute()
        return {"seconds": time.perf_counter() - started}


def import_from(root: str) -> None:
    """Import the package from `root`, and everything else of the benchmarks from here."""
    sys.path.insert(0, root)
    import twophase_fast

    found = Path(twophase_fast.__file__).parent.parent
    if found != Path(root):
        raise ImportError(f"twophase_fast came from {found}, not from {root}")
    sys.path[0] = str(Path(__file__).parent.parent)


if __name__ == "__main__":
    import_from(sys.argv[1])
    import torch

    from benchmarks.child import serve

    torch.set_num_threads(int(sys.argv[2]))
    serve(Answers())
