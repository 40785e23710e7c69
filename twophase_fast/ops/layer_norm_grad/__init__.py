"""`layer_norm_grad`: the backward of LayerNorm over the last axis for K cotangents of each sample.

It is bound by memory: C++ on CPU tensors and Triton on CUDA tensors make one pass.
"""

from __future__ import annotations

import torch

from twophase_fast._types import Backend
from twophase_fast.ops import _checks, _dispatch, _library, _operands
from twophase_fast.ops._triton.backend import lazy, refuses
from twophase_fast.ops.layer_norm_grad import cpu, reference
from twophase_fast.ops.layer_norm_grad.config import MOST_FEATURES


def layer_norm_grad(
    g: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    out: torch.Tensor | None = None,
    backend: Backend | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of y = x̂·weight + bias, x̂ = (x − mean)·rstd over the last axis, for all cotangents.

    gw = g·weight;   out[b,k,t,:] = rstd[b,t]·(gw − mean_d(gw) − x̂·mean_d(gw·x̂));
    weight_grad[b,k,:] = Σ_t g[b,k,t,:]·x̂[b,t,:];   bias_grad[b,k,:] = Σ_t g[b,k,t,:].

    Sums are in the dtype of `g`, bitwise the same on every call and for any number of threads. Contiguous operands
    are read in place, others are copied first.

    Args:
        g: Cotangents behind the normalisation `[B, K, T, D]`, float32 or float64.
        x: Its inputs `[B, T, D]`, dtype and device of `g`, as are all others.
        mean: Means of x over D, as `torch.native_layer_norm` gives them: `[B, T, 1]`, or `[B, T]`.
        rstd: 1/√(variance over D + eps), likewise.
        weight: Scales `[D]`; None for ones.
        out: Where to write the first result, like `g`: `g` itself, or memory that shares nothing with the operands.
            None: new memory.
        backend: `"reference"`, `"cpu"`, `"triton"` (up to 8192 features in float32, 2048 in float64), or None for the
            first that fits.

    Returns:
        out `[B, K, T, D]`, weight_grad `[B, K, D]`, bias_grad `[B, K, D]`, dtype and device of `g`, without gradient;
        the first is `out` itself if it was given.

    Raises:
        InputError: Wrong rank, shape, dtype or device, or `out` cannot be written in place.
        BackendError: The named backend cannot run on these inputs.
    """
    mean, rstd = _check(g, x, mean, rstd, weight)
    operands = [_operands.plain(operand) for operand in (g, x, mean, rstd, weight)]
    if out is None:
        return torch.ops.twophase_fast.layer_norm_grad(*operands, backend or "")
    _operands.writable(out, tuple(g.shape), "[B, K, T, D]", ("g", g))
    sums = [g.new_empty(*g.shape[:2], g.shape[3]) for _ in range(2)]
    torch.ops.twophase_fast.layer_norm_grad_out(out, *sums, *operands, backend or "")
    return out, *sums


def _check(
    g: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor, weight: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Check all operands; return mean and rstd as [B, T].

    Raises:
        InputError: One is wrong.
    """
    _operands.operand("g", g, "B K T D")
    _checks.floating("g", g)
    samples, _, positions, features = g.shape
    _operands.check_like("x", x, (samples, positions, features), "[B, T, D], g without its second axis", g)
    if weight is not None:
        _operands.check_like("weight", weight, (features,), "[D]", g)
    statistics = {name: _checks.tensor(name, value) for name, value in (("mean", mean), ("rstd", rstd))}
    for name, value in statistics.items():
        last = (1,) if value.ndim > 2 else ()
        _operands.check_like(name, value, (samples, positions, *last), "[B, T] or [B, T, 1]", g)
    return statistics["mean"].reshape(samples, positions), statistics["rstd"].reshape(samples, positions)


def _triton_refuses(first: torch.Tensor, *others: torch.Tensor | None) -> list[str]:
    """Return why the Triton version does not run here; the first operand, cotangents or result, has the features."""
    most = MOST_FEATURES.get(first.element_size(), 0)
    wide = (
        [f"{first.shape[-1]} features; the kernel holds whole rows of up to {most}"] if first.shape[-1] > most else []
    )
    return [*refuses(first, *others, dtypes=_checks.FLOATS), *wide]


_OPERANDS = "Tensor g, Tensor x, Tensor mean, Tensor rstd, Tensor? weight, str backend"
_RESULTS = "Tensor(a!) out, Tensor(b!) weight_grad, Tensor(c!) bias_grad"
_library.define(f"layer_norm_grad({_OPERANDS}) -> (Tensor, Tensor, Tensor)", fake=reference.new_results)
_library.define(f"layer_norm_grad_out({_RESULTS}, {_OPERANDS}) -> ()")
for _name in ("layer_norm_grad", "layer_norm_grad_out"):
    _dispatch.add(
        _name,
        reference=getattr(reference, _name),
        cpu=getattr(cpu, _name),
        cpu_refuses=cpu.refuses,
        triton=lazy("layer_norm_grad", _name),
        triton_refuses=_triton_refuses,
    )
