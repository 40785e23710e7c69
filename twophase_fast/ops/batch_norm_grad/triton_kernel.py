"""The backward of BatchNorm in evaluation mode and of ReLU on the GPU: one pass over the cotangents, no atomics."""

from __future__ import annotations

from itertools import product

import torch

from twophase_fast.ops import _operands
from twophase_fast.ops._triton.aot import AotRow
from twophase_fast.ops._triton.launch import Key, Launch, launch
from twophase_fast.ops._triton.modes import architecture
from twophase_fast.ops._triton.split import multiprocessors
from twophase_fast.ops.batch_norm_grad import reference
from twophase_fast.ops.batch_norm_grad.config import (
    NORM,
    RELU,
    SUM_BLOCKS,
    SUM_ROWS,
    WIDE,
    alignment,
    shared_out,
    tile_of,
)
from twophase_fast.ops.batch_norm_grad.kernels import add_blocks_kernel, batch_norm_kernel, relu_kernel

_MANY = 2048  # channels, more than a tile has
_NAMES = {"4": "fp32", "8": "fp64"}


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
    """Write the three results, the same bits on every call; what is not contiguous is copied, and copied back."""
    results = [result.contiguous() for result in (out, weight_grad, bias_grad)]
    operands = [None if t is None else t.contiguous() for t in (g, x, mean, rstd, weight, relu)]
    if not g.numel():
        for sums in results[1:]:
            sums.zero_()
    else:
        key, sizes = (architecture(), str(g.element_size())), (*g.shape[:3], x[0, 0].numel())
        _norm(NORM.choose(key, sizes, g.device, lambda c: _norm(c, _scratch(results), operands)), results, operands)
    for given, result in zip((out, weight_grad, bias_grad), results, strict=True):
        if result is not given:
            given.copy_(result)


batch_norm_grad = _operands.into_new(reference.new_results, batch_norm_grad_out)
"""The three results as new tensors: out [N, C, K, *], weight_grad [N, C, K], bias_grad [N, C, K]."""


def _scratch(results: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.empty_like(result) for result in results]


def _norm(chosen: Launch, results: list[torch.Tensor], operands: list[torch.Tensor | None]) -> None:
    g, x, mean, rstd, weight, relu = operands
    samples, cotangents, channels = g.shape[:3]
    positions = x[0, 0].numel()
    tile = tile_of(architecture(), chosen, channels, positions)
    tiles, blocks = -(-channels // tile["CHANNELS"]), -(-positions // tile["POSITIONS"])
    each = shared_out(cotangents, samples * tiles * blocks, multiprocessors(g.device))
    groups = -(-cotangents // each)
    sums = results[1:] if blocks == 1 else [g.new_empty(*g.shape[:3], blocks) for _ in range(2)]
    batch_norm_kernel[(samples * tiles * blocks * groups,)](
        results[0], *sums, g, x, mean, rstd, weight, relu,
        cotangents, channels, positions, channels * positions, each, groups, tiles, blocks,
        WEIGHT=weight is not None, RELU=relu is not None, ALIGN=alignment(positions), **tile.arguments(),
    )  # fmt: skip
    if blocks > 1:
        for result, parts in zip(results[1:], sums):
            _add_blocks(result, parts)


def _add_blocks(result: torch.Tensor, parts: torch.Tensor) -> None:
    rows, blocks = result.numel(), parts.shape[-1]
    add_blocks_kernel[(-(-rows // SUM_ROWS),)](result, parts, rows, blocks, ROWS=SUM_ROWS, BLOCKS=SUM_BLOCKS)


def relu_grad_(g: torch.Tensor, relu: torch.Tensor) -> None:
    """Set g [N, C, *] to 0 where relu [N, *] ≤ 0; what is not contiguous is copied, and copied back."""
    if not g.numel():
        return
    whole, gate = g.contiguous(), relu.contiguous()
    key, sizes = (architecture(), str(g.element_size())), (*g.shape[:2], relu[0].numel())
    _relu(RELU.choose(key, sizes, g.device, lambda c: _relu(c, torch.empty_like(whole), gate)), whole, gate)
    if whole is not g:
        g.copy_(whole)


def _relu(chosen: Launch, g: torch.Tensor, relu: torch.Tensor) -> None:
    samples, cotangents, elements = *g.shape[:2], relu[0].numel()
    blocks = -(-elements // chosen["ELEMENTS"])
    each = shared_out(cotangents, samples * blocks, multiprocessors(g.device))
    groups = -(-cotangents // each)
    relu_kernel[(samples * blocks * groups,)](
        g, relu, cotangents, elements, each, groups, blocks, ALIGN=alignment(elements), **chosen.arguments()
    )  # fmt: skip


def aot_rows() -> list[AotRow]:
    """Return the kernels in every launch configuration: for short, odd and long rows of positions."""
    shapes = [(1, True), (49, True), (1024, True), (1024, False)]
    norms = [_norm_row(key, chosen, *shape) for (key, chosen), shape in product(NORM.all(), shapes)]
    relus = [_relu_row(key, chosen, align) for key, chosen in RELU.all() for align in (1, WIDE)]
    return [*norms, *relus, *(_sum_row(dtype) for dtype in _NAMES.values())]


def _norm_row(key: Key, chosen: Launch, positions: int, gated: bool) -> AotRow:
    dtype, align = _NAMES[key[1]], alignment(positions)
    pointer = f"*{dtype}:16"
    names = ("out", "weight_grad", "bias_grad", "g", "x", "mean", "rstd")
    arguments = (
        dict.fromkeys((f"p_{name}" for name in names), pointer)
        | dict.fromkeys(("p_weight", "p_relu"), pointer if gated else None)
        | dict.fromkeys(("n_cotangents", "n_channels", "n_each", "n_groups", "n_tiles", "n_blocks"), "i32")
        | {"n_positions": 1 if positions == 1 else "i32:16" if align > 1 else "i32", "n_image": "i32:16"}
        | {"WEIGHT": gated, "RELU": gated, "ALIGN": align}
    )
    label = f"{dtype} {positions} positions{', ReLU' if gated else ''} of {chosen}"
    tile = tile_of(key[0], chosen, _MANY, positions)
    return AotRow("batch_norm_grad", label, batch_norm_kernel, tile, arguments, targets=(key[0],))


def _relu_row(key: Key, chosen: Launch, align: int) -> AotRow:
    pointer = f"*{_NAMES[key[1]]}:16"
    sizes = dict.fromkeys(("n_cotangents", "n_elements", "n_each", "n_groups", "n_blocks"), "i32")
    arguments = {"p_g": pointer, "p_relu": pointer, **sizes, "ALIGN": align}
    label = f"{_NAMES[key[1]]} {'aligned' if align > 1 else 'any'}"
    return AotRow("relu_grad_", label, relu_kernel, chosen, arguments, targets=(key[0],))


def _sum_row(dtype: str) -> AotRow:
    arguments = {"p_sums": f"*{dtype}:16", "p_parts": f"*{dtype}:16", "n_rows": "i32", "n_blocks": "i32"}
    chosen = launch(ROWS=SUM_ROWS, BLOCKS=SUM_BLOCKS)
    return AotRow("batch_norm_grad", f"{dtype} sums", add_blocks_kernel, chosen, arguments)
