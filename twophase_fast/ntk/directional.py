"""J w: the derivative of every output of every sample along a direction w in parameter space, in three ways.

| way | how | fails where |
|---|---|---|
| `forward-mode` | the parameters carry tangents through one forward pass | a node has no forward derivative |
| `double-VJP` | J w = d <J^T u, w> / du, through the graph of the pull-back | a node has no second derivative |
| `factors` | the engine's factors of J, times w | nowhere; C pull-backs |

The cheapest way that gives the right answer is chosen once, by the adjoint identity <u, J w> = <J^T u, w>. It is tried
with w = g / |g|^2 for each parameter, where g is its part of J^T u, so that every parameter adds exactly 1. One that a
way overlooks, wholly or in one of its uses, cannot hide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from twophase_fast.ntk.capture import capture
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.probe import Structure
from twophase_fast.rules._saved import signed
from twophase_fast.rules.factors import Dense, Factor, Lookup, Outer

Direction = Mapping[str, torch.Tensor]
Push = Callable[[Function, Structure, Batch, Sequence[Direction]], list[torch.Tensor]]

_TOLERANCE = 0.01
_NOISE = 100  # a gradient this many roundings below the largest is taken for zero
_SEED = 4_052_025


def forward_mode(
    function: Function, structure: Structure, batch: Batch, directions: Sequence[Direction]
) -> list[torch.Tensor]:
    """Return J w [n, C] for every direction, by tangents through the forward pass."""
    results = []
    for direction in directions:
        with torch.no_grad(), _differentiable_kernels(), forward_ad.dual_level(), _tangents(function, direction):
            output = function.outputs(batch).reshape(batch.size, -1)
            tangent = forward_ad.unpack_dual(output).tangent
            results.append(torch.zeros_like(output) if tangent is None else tangent)
    return results


@contextmanager
def _tangents(function: Function, direction: Direction) -> Iterator[None]:
    """Give the parameters themselves tangents, until the dual level ends.

    Writing a parameter's own value back into it, as a dual number, leaves every bit as it was and reaches every use,
    also those in lists and closures that a substituted parameter would miss.
    """
    for name, parameter in function.parameters.items():
        with torch.autograd._unsafe_preserve_version_counter(parameter):
            tangent = direction[name].to(parameter.dtype)
            parameter.copy_(forward_ad.make_dual(parameter.detach().clone(), tangent))
    yield


def double_vjp(
    function: Function, structure: Structure, batch: Batch, directions: Sequence[Direction]
) -> list[torch.Tensor]:
    """Return J w [n, C] for every direction: the pull-back J^T u is linear in u, so its derivative along w is J w."""
    with torch.enable_grad(), _differentiable_kernels():
        output = function.outputs(batch).reshape(batch.size, -1)
        u = torch.zeros_like(output, requires_grad=True)
        pulled = _gradients(function, output, u, create_graph=True)
        used = {name: g for name, g in pulled.items() if g.requires_grad}
        ends = list(used.values())
        return [
            torch.autograd.grad(ends, u, [direction[n].to(g) for n, g in used.items()], retain_graph=True)[0]
            for direction in directions
        ]


def by_factors(
    function: Function, structure: Structure, batch: Batch, directions: Sequence[Direction]
) -> list[torch.Tensor]:
    """Return J w [n, C] for every direction, from the factors of the per-sample Jacobians."""
    outputs = torch.eye(structure.outputs, dtype=torch.float64)
    results = [torch.zeros(batch.size, structure.outputs, dtype=function.dtype, device=function.device)] * len(
        directions
    )
    factors = cast("dict[str, Factor]", capture(function, batch, structure, outputs))  # no readout is cut off
    for name, factor in factors.items():
        results = [r + _contract(factor, d[name].to(function.dtype)) for r, d in zip(results, directions)]
    return results


def _contract(factor: Factor, w: torch.Tensor) -> torch.Tensor:
    """Return J w [n, C] of one parameter: the change z of its layer's output, against the cotangents g there."""
    if isinstance(factor, Dense):
        return factor.rows() @ w.flatten()
    if isinstance(factor, Outer):
        d, p = factor.a.shape[2], factor.g.shape[3]
        z = factor.a @ (w.reshape(d, p) if factor.transposed else w.reshape(p, d).T)
    elif isinstance(factor, Lookup):
        z = torch.cat([w, w.new_zeros(1, w.shape[1])])[factor.tokens]
    else:
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(factor.kernel_size) - 1]
        z = convolve(factor.x, w, None, factor.stride, factor.padding, factor.dilation, factor.groups)
    return (factor.g * z.unsqueeze(1)).flatten(2).sum(2)


WAYS: dict[str, Push] = {"forward-mode": forward_mode, "double-VJP": double_vjp, "factors": by_factors}


def choose_way(function: Function, structure: Structure, batch: Batch) -> str:
    """Return the name of the first way that runs on the probe's samples and satisfies the adjoint identity."""
    tiny = batch.take(structure.sample_index.to(function.device))
    u = torch.randn(tiny.size, structure.outputs, generator=torch.Generator().manual_seed(_SEED)).to(function.device)
    direction, used = _telling_direction(function, tiny, u)
    for name in _candidates(structure):
        try:
            (pushed,) = WAYS[name](function, structure, tiny, [direction])
        except RuntimeError:  # torch's word for a missing derivative (NotImplementedError included)
            continue
        if abs(float((pushed * u.to(pushed)).sum()) - used) <= _TOLERANCE:
            return name
    return "factors"


def _telling_direction(function: Function, batch: Batch, u: torch.Tensor) -> tuple[Direction, int]:
    """Return w with <J^T u, w> = 1 from every parameter whose gradient is more than noise, and their number."""
    output = function.graph(batch).output
    pulled = _gradients(function, output, u.to(output))
    direction = {name: torch.zeros_like(p) for name, p in function.parameters.items()}
    norms = {name: float(g.double().square().sum()) for name, g in pulled.items()}
    noise = max(norms.values(), default=0.0) * (_NOISE * torch.finfo(output.dtype).eps) ** 2
    used = [name for name, norm in norms.items() if norm > noise]
    direction |= {name: (pulled[name].double() / norms[name]).to(pulled[name]) for name in used}
    return direction, len(used)


def _candidates(structure: Structure) -> list[str]:
    """Return the ways to try before the last.

    Forward mode is left out where a probe on a few samples could miss that it differs: in programs that depend on the
    data, and for tables with a padding row, to which only the pull-back gives no derivative.
    """
    padded = any(
        "Embedding" in node.name() and signed(getattr(node, "_saved_padding_idx", -1)) >= 0
        for node in structure.graph.nodes
    )
    return ["double-VJP"] if padded or structure.signature is None else ["forward-mode", "double-VJP"]


def _gradients(
    function: Function, output: torch.Tensor, u: torch.Tensor, *, create_graph: bool = False
) -> dict[str, torch.Tensor]:
    """Return name -> its part of J^T u, for the parameters in use."""
    leaves = list(function.parameters.values())
    grads = torch.autograd.grad(output, leaves, u, create_graph=create_graph, retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(function.parameters, grads) if g is not None}


@contextmanager
def _differentiable_kernels() -> Iterator[None]:
    """Use attention made of plain operations: fused kernels have neither forward nor second derivatives."""
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
