"""Definition of the backward of LayerNorm over the last axis in plain torch; in float64 it is the truth.

x̂ = (x − mean)·rstd;   gw = g·weight;   out[b,k,t,:] = rstd[b,t]·(gw − mean_d(gw) − x̂·mean_d(gw·x̂))
weight_grad[b,k,:] = Σ_t g[b,k,t,:]·x̂[b,t,:];   bias_grad[b,k,:] = Σ_t g[b,k,t,:]
"""

from __future__ import annotations

import torch

from twophase_fast.ops import _operands


def new_results(g: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return room for out [B, K, T, D], weight_grad [B, K, D] and bias_grad [B, K, D] of g [B, K, T, D]."""
    sums = (*g.shape[:2], g.shape[3])
    return g.new_empty(g.shape), g.new_empty(sums), g.new_empty(sums)


def layer_norm_grad_out(
    out: torch.Tensor,
    weight_grad: torch.Tensor,
    bias_grad: torch.Tensor,
    g: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor | None,
) -> None:
    """Write the three results; `out` may be `g`."""
    scale = rstd.unsqueeze(-1)
    normalised = ((x - mean.unsqueeze(-1)) * scale).unsqueeze(1)
    bias_grad.copy_(g.sum(2))
    weight_grad.copy_((g * normalised).sum(2))
    weighted = g if weight is None else g * weight
    slope = (weighted * normalised).mean(-1, keepdim=True)
    rest = weighted - weighted.mean(-1, keepdim=True) - normalised * slope
    torch.mul(rest, scale.unsqueeze(1), out=out)


layer_norm_grad = _operands.into_new(new_results, layer_norm_grad_out)
"""The three results as new tensors: out [B, K, T, D], weight_grad [B, K, D], bias_grad [B, K, D]."""
