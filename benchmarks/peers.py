"""Who is timed: twophase_fast and the peers, all as functions (model, x, output) -> kernel.

A full kernel is `[N, N, C, C]`, a trace `[N, N]`. Each peer is used as its own documentation shows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

import twophase_fast as tp

OURS = "twophase_fast"
Peer = Callable[[nn.Module, torch.Tensor, str], torch.Tensor]


def twophase_fast(model: nn.Module, x: torch.Tensor, output: str) -> torch.Tensor:
    """`entk` with its defaults."""
    return tp.entk(model, x, output=output)


def torch_func(model: nn.Module, x: torch.Tensor, output: str) -> torch.Tensor:
    """Jacobian contraction as in PyTorch's tutorial 'Neural Tangent Kernels': vmap(jacrev), then einsum."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def single(parameters: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
        return functional_call(model, (parameters, buffers), (sample.unsqueeze(0),)).squeeze(0)

    jacobian = vmap(jacrev(single), (None, 0))(params, x)
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


PEERS: dict[str, Peer] = {OURS: twophase_fast, "torch.func": torch_func, "torchjd": torchjd}
REFUSALS = (ValueError, RuntimeError, NotImplementedError, TypeError, ModuleNotFoundError)
"""What a peer raises on a model it does not take, or where it is not installed."""


def run(peer: str, model: nn.Module, x: torch.Tensor, output: str) -> torch.Tensor:
    """Compute a kernel with the named peer."""
    return PEERS[peer](model, x, output)


def why_not(error: BaseException) -> str:
    """First sentence of a refusal."""
    return str(error).split(". ")[0].splitlines()[0][:200] or type(error).__name__
