"""neural-tangents as a peer: a child process in the environment that `make bench-peers` sets up."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.child import ROOT, Child
from benchmarks.jax_export import export

ENVIRONMENT = ROOT / ".venv-peers"
READY = ENVIRONMENT / ".ready"
PYTHON = ENVIRONMENT / ("Scripts" if sys.platform == "win32" else "bin") / "python"
PREPARATION_SECONDS = 180.0  # to compile and compute once
RUN_SECONDS = 120.0
IMPLEMENTATIONS = {"neural-tangents 1": 1, "neural-tangents 2": 2, "neural-tangents 3": 3}
"""Name of the peer -> `implementation` of `nt.empirical_ntk_fn`: Jacobian contraction, NTK-vector products, structured
derivatives."""


@dataclass(frozen=True)
class Remote:
    """A child that has compiled and computed a kernel.

    Attributes:
        child: The process.
        kernel: What it computed.
        once: Seconds of that, compilation excluded.
        peak_bytes: Increase of memory during that over model, inputs and compiled code, or None if not known.
    """

    child: Child
    kernel: torch.Tensor
    once: float
    peak_bytes: int | None

    def run(self) -> None:
        """Compute again, and wait for it."""
        self.child.ask(RUN_SECONDS, do="run")


@contextmanager
def started(peer: str, model: nn.Module, x: torch.Tensor, output: str) -> Iterator[Remote]:
    """Compile and compute a kernel in a child process that stays until the end of the block.

    Raises:
        ModuleNotFoundError: The environment is not there.
        NotExportableError: The model has a module that is not written for JAX.
        TooSlowError: Compiling and computing once took too long.
        ChildError: The child failed.
    """
    if not READY.exists():
        raise ModuleNotFoundError("the environment of neural-tangents is missing; run make bench-peers")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "model.npz"), Path(folder, "kernel.npy")
        export(model, x, source)
        request = {"model": str(source), "output": output, "implementation": IMPLEMENTATIONS[peer]}
        with Child([str(PYTHON), "-m", "benchmarks.jax_side", str(torch.get_num_threads())]) as child:
            answer = child.ask(PREPARATION_SECONDS, do="prepare", kernel=str(target), **request)
            kernel = torch.from_numpy(np.load(target))
            yield Remote(child, kernel, answer["seconds"], answer["peak_bytes"])
