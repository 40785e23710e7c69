"""`batch_norm_grad`, `relu_grad_`: backward of BatchNorm in evaluation mode and of ReLU for C cotangents a sample.

Both are bound by memory: C++ on CPU tensors and Triton on CUDA tensors make one pass.
"""

from __future__ import annotations

from functools import partial

import torch

from twophase_fast._types import Backend
from twophase_fast.ops import _checks, _dispatch, _library, _operands
from twophase_fast.ops._triton.backend import lazy, refuses
from twophase_fast.ops.batch_norm_grad import cpu, reference


def batch_norm_grad(
    g: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    relu: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    backend: Backend | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of y = (x − mean)·rstd·weight + bias, then ReLU if `relu` is given, for all cotangents.

    h = g, or 0 where relu ≤ 0, whatever g is there (NaN and infinity, too);

    out[n,c,k,t] = h[n,c,k,t]·weight[k]·rstd[k];   bias_grad[n,c,k] = Σ_t h[n,c,k,t];
    weight_grad[n,c,k] = Σ_t h[n,c,k,t]·(x[n,k,t] − mean[k])·rstd[k].

    Sums are in the dtype of `g`, bitwise the same on every call and for any number of threads. Contiguous operands
    are read in place, others are copied first.

    Args:
        g: Cotangents behind the ReLU, or behind the BatchNorm, `[N, C, K, *spatial]`, float32 or float64.
        x: Inputs of the BatchNorm `[N, K, *spatial]`, dtype and device of `g`, as are all others.
        mean: Running means `[K]`.
        rstd: 1/√(running variance + eps) `[K]`.
        weight: Scales `[K]`; None for ones.
        relu: Results of the ReLU `[N, K, *spatial]`; None if there is none.
        out: Where to write the first result, like `g`: `g` itself, or memory that shares nothing with the operands.
            None: new memory.
        backend: `"reference"`, `"cpu"`, `"triton"`, or None for the first that fits.

    Returns:
        out `[N, C, K, *spatial]`, weight_grad `[N, C, K]`, bias_grad `[N, C, K]`, dtype and device of `g`, without
        gradient; the first is `out` itself if it was given.

    Raises:
        InputError: Wrong rank, shape, dtype or device, or `out` cannot be written in place.
        BackendError: The named backend cannot run on these inputs.
    """
    _check_images(g, x)
    for name, channel in (("mean", mean), ("rstd", rstd), *([] if weight is None else [("weight", weight)])):
        _operands.check_like(name, channel, x.shape[1:2], "[K]", g)
    if relu is not None:
        _operands.check_like("relu", relu, x.shape, "[N, K, *spatial], the shape of x", g)
    operands = [_operands.plain(operand) for operand in (g, x, mean, rstd, weight, relu)]
    if out is None:
        return torch.ops.twophase_fast.batch_norm_grad(*operands, backend or "")
    _operands.writable(out, tuple(g.shape), "[N, C, K, *spatial]", ("g", g))
    sums = [g.new_empty(g.shape[:3]) for _ in range(2)]
    torch.ops.twophase_fast.batch_norm_grad_out(out, *sums, *operands, backend or "")
    return out, *sums


def relu_grad_(g: torch.Tensor, relu: torch.Tensor, *, backend: Backend | None = None) -> torch.Tensor:
    """Set g[n,c,…] to 0 where relu[n,…] ≤ 0, in place: the gradient of y = max(x, 0) for C cotangents a sample.

    Args:
        g: Cotangents behind the ReLU `[N, C, *]`, float32 or float64; overwritten by those before it.
        relu: Inputs or results of the ReLU `[N, *]`, dtype and device of `g`.
        backend: `"reference"`, `"cpu"`, `"triton"`, or None for the first that fits.

    Returns:
        `g` itself.

    Raises:
        InputError: Wrong rank, shape, dtype or device, or `g` cannot be written in place.
        BackendError: The named backend cannot run on these inputs.
    """
    _checks.floating("g", _checks.tensor("g", g))
    _checks.rank("g", g, range(2, g.ndim + 1), "[N, C, *], at least two axes")
    _operands.check_like("relu", relu, (g.shape[0], *g.shape[2:]), "[N, *], g without its second axis", g)
    _checks.writable("g", g)
    torch.ops.twophase_fast.relu_grad_(g, _operands.plain(relu), backend or "")
    return g


def _check_images(g: torch.Tensor, x: torch.Tensor) -> None:
    """Check that x is g without its axis of cotangents.

    Raises:
        InputError: It is not, or its rank, dtype or device is wrong.
    """
    _checks.floating("g", _checks.tensor("g", g))
    _checks.rank("g", g, range(3, g.ndim + 1), "[N, C, K, *spatial], at least three axes")
    _operands.check_like("x", x, (g.shape[0], *g.shape[2:]), "[N, K, *spatial], g without its second axis", g)


_OPERANDS = "Tensor g, Tensor x, Tensor mean, Tensor rstd, Tensor? weight, Tensor? relu, str backend"
_RESULTS = "Tensor(a!) out, Tensor(b!) weight_grad, Tensor(c!) bias_grad"
_library.define(f"batch_norm_grad({_OPERANDS}) -> (Tensor, Tensor, Tensor)", fake=reference.new_results)
_library.define(f"batch_norm_grad_out({_RESULTS}, {_OPERANDS}) -> ()")
_library.define("relu_grad_(Tensor(a!) g, Tensor relu, str backend) -> ()")
for _name in ("batch_norm_grad", "batch_norm_grad_out", "relu_grad_"):
    _dispatch.add(
        _name,
        reference=getattr(reference, _name),
        cpu=getattr(cpu, _name),
        cpu_refuses=cpu.refuses,
        triton=lazy("batch_norm_grad", _name),
        triton_refuses=partial(refuses, dtypes=_checks.FLOATS),
    )
