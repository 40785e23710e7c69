"""Definition of the backward of BatchNorm in evaluation mode and ReLU in plain torch; in float64 it is the truth.

h[n,c,k,t] = g[n,c,k,t], or 0 where relu[n,k,t] ≤ 0;   out = h · weight[k] · rstd[k]
weight_grad[n,c,k] = Σ_t h · (x[n,k,t] − mean[k]) · rstd[k];   bias_grad[n,c,k] = Σ_t h
"""

from __future__ import annotations

import torch

from twophase_fast.ops import _operands


def new_results(g: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return room for out [N, C, K, *], weight_grad [N, C, K] and bias_grad [N, C, K] of g [N, C, K, *]."""
    return g.new_empty(g.shape), g.new_empty(g.shape[:3]), g.new_empty(g.shape[:3])


def batch_norm_grad_out(
    out: torch.Tensor,
    weight_grad: torch.Tensor,
    bias_grad: torch.Tensor,
    g: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor | None,
    relu: torch.Tensor | None,
) -> None:
    """Write the three results; `out` may be `g`."""
    h = g if relu is None else torch.where(relu.unsqueeze(1) <= 0, 0, g)
    normalised = (x - _spread(mean, x)) * _spread(rstd, x)
    bias_grad.copy_(_over_positions(h))
    weight_grad.copy_(_over_positions(h * normalised.unsqueeze(1)))
    scale = rstd if weight is None else weight * rstd
    torch.mul(h, _spread(scale, x), out=out)


batch_norm_grad = _operands.into_new(new_results, batch_norm_grad_out)
"""The three results as new tensors: out [N, C, K, *], weight_grad [N, C, K], bias_grad [N, C, K]."""


def relu_grad_(g: torch.Tensor, relu: torch.Tensor) -> None:
    """Set g [N, C, *] to 0 where relu [N, *] ≤ 0."""
    g.masked_fill_(relu.unsqueeze(1) <= 0, 0)


def _spread(channel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return numbers per channel [K] such that they multiply x [N, K, *]."""
    return channel.view(-1, *[1] * (x.ndim - 2))


def _over_positions(h: torch.Tensor) -> torch.Tensor:
    """Return the sums over the axes from the fourth on, of which there may be none."""
    return h.unsqueeze(-1).sum(tuple(range(3, h.ndim + 1)))
