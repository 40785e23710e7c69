"""Definition of the pull-back through a linear layer in plain torch; in float64 it is the truth.

out[b,k,t,i] (+)= (Σ_o g[b,k,t,o]·weight[o,i])·scale[b,t,i]
"""

from __future__ import annotations

import torch

from twophase_fast.ops._ieee import ieee_float32


def linear_input_grad_(
    out: torch.Tensor, g: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor | None, add: bool
) -> None:
    """Write the gradients to `out` [B, K, T, I], or add them."""
    with ieee_float32():
        pulled = g @ weight
    if scale is not None:
        pulled *= scale.unsqueeze(1)
    if add:
        out += pulled
    else:
        out.copy_(pulled)
