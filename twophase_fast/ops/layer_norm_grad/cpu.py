"""The backward of LayerNorm in C++ (`csrc/layer_norm_grad`): one pass over memory."""

from __future__ import annotations

import torch

from twophase_fast import _native
from twophase_fast.ops import _operands
from twophase_fast.ops.layer_norm_grad import reference

refuses = _operands.cpu_refuses
"""Why the ops of this folder do not run here."""


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
    """Write the three results; what is not contiguous is copied, and copied back."""
    given = (out, weight_grad, bias_grad)
    results = [result.contiguous() for result in given]
    operands = [None if operand is None else operand.contiguous() for operand in (g, x, mean, rstd, weight)]
    arrays = [None if tensor is None else tensor.numpy() for tensor in (*results, *operands)]
    _native.call("layer_norm_grad", *arrays)
    for destination, result in zip(given, results, strict=True):
        if result.data_ptr() != destination.data_ptr():
            destination.copy_(result)


layer_norm_grad = _operands.into_new(reference.new_results, layer_norm_grad_out)
"""The three results as new tensors: out [B, K, T, D], weight_grad [B, K, D], bias_grad [B, K, D]."""
