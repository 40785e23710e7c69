"""The definition, slowly: one `torch.autograd.grad` per sample and output.

Shipped so that anyone can check a kernel of their own model; every fast path is tested against it in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import Batch, make_batch
from twophase_fast.ntk.parameters import select_parameters


def naive_jacobian(function: Function, batch: Batch) -> dict[str, torch.Tensor]:
    """Return parameter name -> J [N, C, *shape], each sample run on its own."""
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in function.parameters}
    for n in range(batch.size):
        y = function.graph(batch.take(slice(n, n + 1))).output
        per_output = [_gradients(function, y[0, c]) for c in range(y.shape[1])]
        for name in rows:
            rows[name].append(torch.stack([g[name] for g in per_output]))
    return {name: torch.stack(row) for name, row in rows.items()}


def _gradients(function: Function, scalar: torch.Tensor) -> dict[str, torch.Tensor]:
    parameters = list(function.parameters.values())
    grads = torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(function.parameters.items(), grads)}


def naive_entk(
    model: nn.Module,
    x1: Any,
    x2: Any = None,
    *,
    output: str = "full",
    output_fn: Callable[..., torch.Tensor] | None = None,
    targets: Any = None,
    targets2: Any = None,
    params: Any = None,
) -> torch.Tensor:
    """Return the eNTK by its definition, K[n,m,c,c'] = <df_c(x1_n)/dtheta, df_c'(x2_m)/dtheta>.

    Args:
        model: Any deterministic module.
        x1: Inputs with N samples.
        x2: Inputs with M samples, or None for x1.
        output: `full` [N,M,C,C], `trace` [N,M], `diagonal` [N,M,C] or `sum` [N,M] (gradient of sum_c f_c / sqrt(C)).
        output_fn: As in `entk`.
        targets: As in `entk`, for x1.
        targets2: As in `entk`, for x2.
        params: As in `entk`.

    Returns:
        The kernel, in the parameters' dtype.
    """
    function = Function(model, output_fn, select_parameters(model, params))
    j1 = _flat(naive_jacobian(function, make_batch(x1, targets, name="x1", device=function.device)))
    j2 = j1
    if x2 is not None:
        j2 = _flat(naive_jacobian(function, make_batch(x2, targets2, name="x2", device=function.device)))
    if output == "sum":
        scale = j1.shape[1] ** -0.5
        return (j1.sum(1) * scale) @ (j2.sum(1) * scale).T
    (n, c), (m, d) = j1.shape[:2], j2.shape[:2]
    full = (j1.flatten(0, 1) @ j2.flatten(0, 1).T).view(n, c, m, d).transpose(1, 2)
    if output == "full":
        return full
    diagonal = full.diagonal(dim1=2, dim2=3)
    return diagonal.sum(-1) if output == "trace" else diagonal


def _flat(jacobian: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([j.reshape(*j.shape[:2], -1) for j in jacobian.values()], 2)
