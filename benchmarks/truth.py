"""The kernel by its definition in float64: one `torch.autograd.grad` per sample and output, nothing shared."""

from __future__ import annotations

import copy

import torch
from torch import nn

GROUP_BYTES = 1 << 30  # of Jacobian held at once


def naive_kernel(model: nn.Module, x: torch.Tensor, output: str) -> torch.Tensor:
    """Return the full `[N, N, C, C]` or trace `[N, N]` kernel in float64, parameter group by parameter group."""
    model = copy.deepcopy(model).double().eval()
    x = x.double() if x.is_floating_point() else x
    parameters = [p for p in model.parameters() if p.requires_grad]
    outputs = model(x[:1]).shape[1]
    rows = len(x) * outputs
    matrix = torch.zeros(rows, rows, dtype=torch.float64, device=x.device)
    for group in _groups(parameters, GROUP_BYTES // (8 * rows)):
        jacobian = torch.stack([row for sample in x for row in _jacobian_rows(model, sample, group, outputs)])
        matrix += jacobian @ jacobian.T
    full = matrix.view(len(x), outputs, len(x), outputs).transpose(1, 2)
    return full if output == "full" else full.diagonal(dim1=2, dim2=3).sum(-1)


def _groups(parameters: list[nn.Parameter], entries: int) -> list[list[nn.Parameter]]:
    """Consecutive parameters with at most `entries` entries together (or one larger one alone)."""
    groups: list[list[nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        if not groups or parameter.numel() > room:
            groups.append([])
            room = entries
        groups[-1].append(parameter)
        room -= parameter.numel()
    return groups


def _jacobian_rows(model: nn.Module, sample: torch.Tensor, group: list[nn.Parameter], outputs: int):
    y = model(sample.unsqueeze(0))[0]
    for c in range(outputs):
        grads = torch.autograd.grad(y[c], group, retain_graph=True, materialize_grads=True)
        yield torch.cat([grad.flatten() for grad in grads])
