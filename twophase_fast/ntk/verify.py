"""Recomputing random entries of a kernel by an independent path: one sample at a time, one `torch.autograd.grad` each.

The path shares nothing with the engine but the forward pass: no graph is walked, no rule, factor or op is used.
"""

from __future__ import annotations

from typing import Any

import torch

from twophase_fast._types import Precision, TwoPhaseError
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import Batch

_SPLIT_ERROR = {"highest": 0.0, "high": 1e-4, "medium": 1e-2}

Entry = tuple[int, ...]
Gradient = dict[str, torch.Tensor]


class VerificationError(TwoPhaseError, ArithmeticError):
    """A kernel's entry disagrees with the same entry computed by an independent path."""


def verify_entries(
    function: Function,
    left: Batch,
    right: Batch | None,
    kernel: Any,
    output: str,
    k: int,
    seed: int = 0,
    *,
    precision: Precision = "highest",
) -> float:
    """Recompute `k` random entries of a kernel and return the largest disagreement.

        error = |K[n, m, c, c'] - <a, b>| / (|a| |b|),    a = df_c(x1_n)/dtheta,  b = df_c'(x2_m)/dtheta

    with a and b each from a forward pass of that sample alone, and products in float64. For `trace`, <a, b> and |a| |b|
    are summed over the C outputs (2 C gradients per entry).

    Args:
        function: Model, output function and selected parameters.
        left: The N samples.
        right: The M samples, or None for the symmetric kernel.
        kernel: Anything with `shape` that gives a number for an index tuple: a Tensor, NumPy array or HDF5 data set.
        output: `full`, `trace`, `diagonal` or `sum`: the form of `kernel`.
        k: Number of entries.
        seed: Decides which entries.
        precision: The precision the kernel was computed in.

    Returns:
        The largest error, to be compared with `tolerance`.

    Raises:
        VerificationError: An error exceeds the tolerance; the message names the entry and both values.
    """
    allowed = tolerance(function, precision)
    worst = 0.0
    for entry in _random_entries(tuple(kernel.shape), k, seed):
        given = float(kernel[entry])
        expected, scale = _recompute(function, left, left if right is None else right, output, entry)
        error = abs(given - expected) / scale if scale else abs(given)
        if not error <= allowed:  # also where NaN
            raise VerificationError(_message(entry, output, given, expected, error, allowed))
        worst = max(worst, error)
    return worst


def tolerance(function: Function, precision: Precision = "highest") -> float:
    """Return the largest error that rounding explains: sqrt(eps) of the coarsest parameter, or the precision's."""
    eps = max(torch.finfo(p.dtype).eps for p in function.parameters.values())
    return max(eps**0.5, _SPLIT_ERROR[precision])


def _random_entries(shape: tuple[int, ...], k: int, seed: int) -> list[Entry]:
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(size, (k,), generator=generator).tolist() for size in shape]
    return list(zip(*columns))


def _recompute(function: Function, left: Batch, right: Batch, output: str, entry: Entry) -> tuple[float, float]:
    """Return the entry, and the product of the gradients' norms."""
    y1, y2 = (function.graph(batch.take(slice(n, n + 1))).output[0] for batch, n in zip((left, right), entry[:2]))
    if output == "sum":
        pairs = [(y1.sum() * len(y1) ** -0.5, y2.sum() * len(y2) ** -0.5)]
    elif output == "trace":
        pairs = list(zip(y1, y2))
    else:
        pairs = [(y1[entry[2]], y2[entry[-1]])]  # diagonal: both ends are c
    value = scale = 0.0
    for a, b in pairs:
        one, two = _gradient(function, a), _gradient(function, b)
        value += _inner(one, two)
        scale += (_inner(one, one) * _inner(two, two)) ** 0.5
    return value, scale


def _gradient(function: Function, scalar: torch.Tensor) -> Gradient:
    grads = torch.autograd.grad(scalar, list(function.parameters.values()), retain_graph=True, allow_unused=True)
    return {name: grad.double() for name, grad in zip(function.parameters, grads) if grad is not None}


def _inner(one: Gradient, two: Gradient) -> float:
    return sum(float((one[name] * two[name]).sum()) for name in one if name in two)


def _message(entry: Entry, output: str, given: float, expected: float, error: float, allowed: float) -> str:
    return (
        f"entry {entry} of the {output} kernel is {given:.10g}, but one torch.autograd.grad per sample gives "
        f"{expected:.10g} (difference {error:.1e} of the gradients' norms, at most {allowed:.1e} is rounding): do not "
        "use this kernel. Compute it again with the model in float64, which shows whether precision is the cause; if "
        "not, compare entk(per_parameter=True) with naive_entk(params=...) to find the parameter, and report it"
    )
