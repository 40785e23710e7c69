"""Tensors of runs as flat vectors in one order of elements."""

from __future__ import annotations

import torch


def in_one_order(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return tensors of one shape flat, in one order of elements; dense ones of equal strides are not copied."""
    if all(tensor.is_contiguous() for tensor in tensors):
        return [tensor.view(-1) for tensor in tensors]
    if len({tensor.stride() for tensor in tensors}) == 1 and _is_dense(tensors[0]):
        return [tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors]
    return [tensor.reshape(-1).contiguous() for tensor in tensors]


def _is_dense(tensor: torch.Tensor) -> bool:
    order = sorted(range(tensor.ndim), key=tensor.stride)
    return tensor.permute(order[::-1]).is_contiguous()
