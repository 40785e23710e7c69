"""The backward of BatchNorm in evaluation mode and ReLU in C++ (`csrc/batch_norm_grad`): one pass over memory."""

from __future__ import annotations

import torch

from twophase_fast import _native
from twophase_fast.ops import _operands
from twophase_fast.ops.batch_norm_grad import reference

refuses = _operands.cpu_refuses
"""Why the ops of this folder do not run here."""


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
    """Write the three results; what is not contiguous is copied, and copied back."""
    results = [result.contiguous() for result in (out, weight_grad, bias_grad)]
    operands = [None if t is None else t.contiguous() for t in (g, x, mean, rstd, weight, relu)]
    samples, channels = x.shape[:2]
    positions = x.shape[2:].numel()
    cotangents, images = (samples, g.shape[1], channels, positions), (samples, channels, positions)
    views = [results[0].view(cotangents), *results[1:]]
    shapes = (cotangents, images, (channels,), (channels,), (channels,), images)
    views += [None if t is None else t.view(shape) for t, shape in zip(operands, shapes, strict=True)]
    _native.call("batch_norm_grad", *(None if view is None else view.numpy() for view in views))
    for given, result in zip((out, weight_grad, bias_grad), results, strict=True):
        _copy_back(given, result)


batch_norm_grad = _operands.into_new(reference.new_results, batch_norm_grad_out)
"""The three results as new tensors: out [N, C, K, *], weight_grad [N, C, K], bias_grad [N, C, K]."""


def relu_grad_(g: torch.Tensor, relu: torch.Tensor) -> None:
    """Set g [N, C, *] to 0 where relu [N, *] ≤ 0; what is not contiguous is copied, and copied back."""
    samples, elements = relu.shape[0], relu.shape[1:].numel()
    whole, gate = g.contiguous(), relu.contiguous()
    flat = whole.view(samples, g.shape[1], elements)
    _native.call("relu_grad_", flat.numpy(), gate.view(samples, elements).numpy())
    _copy_back(g, whole)


def _copy_back(given: torch.Tensor, result: torch.Tensor) -> None:
    if result is not given and result.data_ptr() != given.data_ptr():
        given.copy_(result)
