"""Who is timed: twophase_fast and the peers, each used as its own documentation shows.

A full kernel is `[N, N, C, C]`, a trace `[N, N]`. `session` prepares a peer on a workload: computing in this process,
or in a child with an environment of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

import twophase_fast as tp
from benchmarks import jax_peer, memory
from benchmarks.child import TooSlowError
from benchmarks.workloads import Workload, warm_up

OURS = "twophase_fast"
OURS_HIGH = "twophase_fast high"
WHOLE = "torch.func"
CHUNK = 8  # samples per chunk of torch.func's vmap
Peer = Callable[[nn.Module, torch.Tensor, str], torch.Tensor]


def twophase_fast(model: nn.Module, x: torch.Tensor, output: str, precision: str = "highest") -> torch.Tensor:
    """`entk` with its defaults, or another precision."""
    return tp.entk(model, x, output=output, precision=precision)


def torch_func(model: nn.Module, x: torch.Tensor, output: str, chunk: int | None = None) -> torch.Tensor:
    """Jacobian contraction as in PyTorch's tutorial 'Neural Tangent Kernels': vmap(jacrev), then einsum.

    With `chunk` the Jacobian is made for so many samples at a time (vmap's own `chunk_size`).
    """
    params = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def single(parameters: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
        return functional_call(model, (parameters, buffers), (sample.unsqueeze(0),)).squeeze(0)

    jacobian = vmap(jacrev(single), (None, 0), chunk_size=chunk)(params, x)
    rows = [j.flatten(2) for j in jacobian.values()]
    equation = {"full": "Naf,Mbf->NMab", "trace": "Naf,Maf->NM"}[output]
    return torch.stack([torch.einsum(equation, j, j) for j in rows]).sum(0)


def torchjd(model: nn.Module, x: torch.Tensor, output: str) -> torch.Tensor:
    """TorchJD's autogram engine: the Gramian of the Jacobian of the outputs, rows sample-major.

    Raises:
        ValueError: TorchJD refuses the model (BatchNorm, among others).
        NotImplementedError: It has no trace.
    """
    from torchjd.autogram import Engine

    if output != "full":
        raise NotImplementedError("computes full kernels only")
    engine = Engine(model, batch_dim=0)
    y = model(x)
    gramian = engine.compute_gramian(y)
    samples, outputs = y.shape
    return gramian.detach().reshape(samples, outputs, samples, outputs).transpose(1, 2)


LOCAL: dict[str, Peer] = {
    OURS: twophase_fast,
    OURS_HIGH: partial(twophase_fast, precision="high"),
    WHOLE: torch_func,
    "torch.func chunked": partial(torch_func, chunk=CHUNK),
    "torchjd": torchjd,
}
"""Peers that compute in this process."""

NAMES = (*LOCAL, *jax_peer.IMPLEMENTATIONS)
"""All of them, ours first."""

REFUSALS = (ValueError, RuntimeError, NotImplementedError, TypeError, ModuleNotFoundError)
"""What a peer raises on a model it does not take, or where it is not installed."""


@dataclass(frozen=True)
class Session:
    """A peer on a workload, after its first computation.

    Attributes:
        kernel: What it computed.
        once: Seconds that took.
        run: Computes again.
        peak_bytes: Measures the increase of memory over model and inputs; None where the system does not tell.
    """

    kernel: torch.Tensor
    once: float
    run: Callable[[], object]
    peak_bytes: Callable[[], int | None]


@contextmanager
def session(peer: str, workload: Workload, model: nn.Module, x: torch.Tensor) -> Iterator[Session]:
    """Compute a workload's kernel with the named peer, and keep the peer ready to do it again."""
    if peer in jax_peer.IMPLEMENTATIONS:
        with jax_peer.started(peer, model, x, workload.output) as remote:
            yield Session(remote.kernel, remote.once, remote.run, lambda: remote.peak_bytes)
        return
    _warm_up(peer)
    started = time.perf_counter()
    kernel = run(peer, model, x, workload.output)
    once = time.perf_counter() - started
    again = partial(run, peer, model, x, workload.output)
    yield Session(kernel, once, again, partial(memory.peak_increase, workload.name, peer))


@cache
def _warm_up(peer: str) -> None:
    """Load a peer's code, once a process, so that its first computation can count."""
    run(peer, *warm_up(), "full")


def run(peer: str, model: nn.Module, x: torch.Tensor, output: str) -> torch.Tensor:
    """Compute a kernel in this process with the named peer."""
    return LOCAL[peer](model, x, output)


def status_of(refusal: BaseException) -> str:
    """Say in two words why there is no kernel."""
    if isinstance(refusal, ModuleNotFoundError):
        return "not installed"
    return "too slow" if isinstance(refusal, TooSlowError) else "refuses"


def why_not(error: BaseException) -> str:
    """First sentence of a refusal."""
    return str(error).split(". ")[0].splitlines()[0][:200] or type(error).__name__
