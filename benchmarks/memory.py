"""Peak memory of one kernel, in a process of its own.

`python -m benchmarks.memory WORKLOAD PEER` prints one line of JSON. The figure is the highest resident set during the
computation, less the resident set just before it, when model, inputs and all code are loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks import resident


def peak_increase(workload: str, peer: str) -> int | None:
    """Run a peer on a workload in a child process.

    Returns:
        Bytes, or None where the system does not tell peak memory (not Linux).

    Raises:
        RuntimeError: The child failed.
    """
    command = [sys.executable, "-m", "benchmarks.memory", workload, peer, str(torch.get_num_threads())]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    if answer.returncode != 0:
        raise RuntimeError(f"measuring {peer} on {workload} failed: {answer.stderr.strip().splitlines()[-1:]}")
    return json.loads(answer.stdout.splitlines()[-1])["peak_increase"]


def measure(workload: str, peer: str) -> int | None:
    """Measure in this process; the figure is only right in a fresh one."""
    from benchmarks import peers, workloads

    peers.run(peer, *workloads.warm_up(), "full")
    row = workloads.WORKLOADS[workload]
    model, x = row.build()
    kernel, peak = resident.peak_increase(lambda: peers.run(peer, model, x, row.output))
    assert kernel.shape[0] == len(x)
    return peak


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps({"peak_increase": measure(sys.argv[1], sys.argv[2])}))
