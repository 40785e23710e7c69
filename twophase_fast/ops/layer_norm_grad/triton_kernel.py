"""The backward of LayerNorm over the last axis on the GPU: one pass over the cotangents, no atomics.

A program takes a chunk of a sample's positions for one cotangent and holds its sums over them in registers; programs
that read the same positions of x follow one another, so that these come from cache. Sums of several chunks are written
apart and added in order.
"""

from __future__ import annotations

import torch
import triton.language as tl

from twophase_fast.ops import _operands
from twophase_fast.ops._triton.aot import AotRow
from twophase_fast.ops._triton.kernel import kernel
from twophase_fast.ops._triton.launch import Key, Launch, launch
from twophase_fast.ops._triton.modes import architecture
from twophase_fast.ops._triton.split import multiprocessors
from twophase_fast.ops.batch_norm_grad.config import alignment
from twophase_fast.ops.batch_norm_grad.kernels import multiple
from twophase_fast.ops.layer_norm_grad import reference
from twophase_fast.ops.layer_norm_grad.config import ADDED_BLOCK, NORM, chunk_length, features_class, tile_of

_MANY = 1 << 20  # positions, more than a tile has
_NAMES = {"4": "fp32", "8": "fp64"}


@kernel
def layer_norm_kernel(
    p_out, p_weight_grad, p_bias_grad, p_g, p_x, p_mean, p_rstd, p_weight,
    n_cotangents, n_positions, n_features, n_chunk, n_chunks,
    WEIGHT: tl.constexpr, ALIGN: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """Write rstd·(gw − mean(gw) − x̂·mean(gw·x̂)), gw = g·weight, and a chunk's Σ g·x̂ and Σ g.

    Grid: samples x chunks x cotangents. Sums are [B, K, chunks, D].
    """
    pid = tl.program_id(0)
    i_cotangent = pid % n_cotangents
    i_chunk = pid // n_cotangents % n_chunks
    i_sample = (pid // n_cotangents // n_chunks).to(tl.int64)
    i_row = i_sample * n_cotangents + i_cotangent
    width = multiple(n_features, ALIGN)
    o_row = tl.arange(0, ROWS)
    o_feature = tl.arange(0, FEATURES)
    m_feature = o_feature < width
    offsets = o_row[:, None] * width + o_feature[None, :]
    if WEIGHT:
        b_weight = tl.load(p_weight + o_feature, mask=m_feature, other=0.0)
    first = i_chunk * n_chunk
    last = tl.minimum(first + n_chunk, n_positions)
    b_weight_grad = tl.zeros((ROWS, FEATURES), dtype=p_g.dtype.element_ty)
    b_bias_grad = tl.zeros((ROWS, FEATURES), dtype=p_g.dtype.element_ty)
    for t in range(first, last, ROWS):
        m_row = o_row < last - t
        mask = m_row[:, None] & m_feature[None, :]
        statistics = i_sample * n_positions + t + o_row
        b_mean = tl.load(p_mean + statistics, mask=m_row, other=0.0)
        b_rstd = tl.load(p_rstd + statistics, mask=m_row, other=0.0)
        b_x = tl.load(p_x + (i_sample * n_positions + t) * width + offsets, mask=mask, other=0.0)
        b_x = tl.where(mask, (b_x - b_mean[:, None]) * b_rstd[:, None], 0.0)
        start = (i_row * n_positions + t) * width
        b_g = tl.load(p_g + start + offsets, mask=mask, other=0.0)
        b_weight_grad += b_g * b_x
        b_bias_grad += b_g
        if WEIGHT:
            b_g = b_g * b_weight[None, :]
        b_average = tl.sum(b_g, axis=1) / width
        b_slope = tl.sum(b_g * b_x, axis=1) / width
        b_out = (b_g - b_average[:, None] - b_x * b_slope[:, None]) * b_rstd[:, None]
        tl.store(p_out + start + offsets, b_out, mask=mask)
    place = (i_row * n_chunks + i_chunk) * width + o_feature
    tl.store(p_weight_grad + place, tl.sum(b_weight_grad, axis=0), mask=m_feature)
    tl.store(p_bias_grad + place, tl.sum(b_bias_grad, axis=0), mask=m_feature)


@kernel
def add_chunks_kernel(p_sums, p_parts, n_features, n_chunks, n_blocks, BLOCK: tl.constexpr):
    """Write the sums of [rows, chunks, features] over the chunks, in order; grid: rows x blocks of features."""
    i_row = (tl.program_id(0) // n_blocks).to(tl.int64)
    o_feature = tl.program_id(0) % n_blocks * BLOCK + tl.arange(0, BLOCK)
    mask = o_feature < n_features
    b_sum = tl.zeros((BLOCK,), dtype=p_sums.dtype.element_ty)
    p_part = p_parts + i_row * n_chunks * n_features + o_feature
    for _ in range(n_chunks):
        b_sum += tl.load(p_part, mask=mask, other=0.0)
        p_part += n_features
    tl.store(p_sums + i_row * n_features + o_feature, b_sum, mask=mask)


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
    """Write the three results, the same bits on every call; what is not contiguous is copied, and copied back."""
    results = [result.contiguous() for result in (out, weight_grad, bias_grad)]
    operands = [None if t is None else t.contiguous() for t in (g, x, mean, rstd, weight)]
    if not g.numel():
        for sums in results[1:]:
            sums.zero_()
    else:
        key = architecture(), str(g.element_size()), features_class(g.shape[3], g.element_size())
        _norm(NORM.choose(key, g.shape, g.device, lambda c: _norm(c, _scratch(results), operands)), results, operands)
    for given, result in zip((out, weight_grad, bias_grad), results, strict=True):
        if result is not given:
            given.copy_(result)


layer_norm_grad = _operands.into_new(reference.new_results, layer_norm_grad_out)
"""The three results as new tensors: out [B, K, T, D], weight_grad [B, K, D], bias_grad [B, K, D]."""


def _scratch(results: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.empty_like(result) for result in results]


def _norm(chosen: Launch, results: list[torch.Tensor], operands: list[torch.Tensor | None]) -> None:
    g, x, mean, rstd, weight = operands
    samples, cotangents, positions, features = g.shape
    tile = tile_of(architecture(), chosen, positions, features)
    chunk = chunk_length(positions, tile["ROWS"], samples * cotangents, multiprocessors(g.device))
    chunks = -(-positions // chunk)
    sums = results[1:] if chunks == 1 else [g.new_empty(samples, cotangents, chunks, features) for _ in range(2)]
    layer_norm_kernel[(samples * chunks * cotangents,)](
        results[0], *sums, g, x, mean, rstd, weight, cotangents, positions, features, chunk, chunks,
        WEIGHT=weight is not None, ALIGN=alignment(features), **tile.arguments(),
    )  # fmt: skip
    if chunks > 1:
        blocks = -(-features // ADDED_BLOCK)
        for result, parts in zip(results[1:], sums):
            add_chunks_kernel[(samples * cotangents * blocks,)](
                result, parts, features, chunks, blocks, BLOCK=ADDED_BLOCK
            )


def aot_rows() -> list[AotRow]:
    """Return the kernels in every launch configuration: rows as wide as they may be, and short odd ones."""
    norms = [
        _norm_row(key, chosen, features)
        for key, chosen in NORM.all()
        for features in (int(key[2]), *([65] if key[2] == "1024" else []))
    ]
    return [*norms, *(_sum_row(dtype) for dtype in _NAMES.values())]


def _norm_row(key: Key, chosen: Launch, features: int) -> AotRow:
    dtype, align = _NAMES[key[1]], alignment(features)
    pointers = (f"p_{name}" for name in ("out", "weight_grad", "bias_grad", "g", "x", "mean", "rstd", "weight"))
    arguments = (
        dict.fromkeys(pointers, f"*{dtype}:16")
        | dict.fromkeys(("n_cotangents", "n_positions", "n_chunk", "n_chunks"), "i32")
        | {"n_features": "i32:16" if align > 1 else "i32", "WEIGHT": True, "ALIGN": align}
    )
    label, tile = f"{dtype} {features} features of {chosen}", tile_of(key[0], chosen, _MANY, features)
    return AotRow("layer_norm_grad", label, layer_norm_kernel, tile, arguments, targets=(key[0],))


def _sum_row(dtype: str) -> AotRow:
    arguments = dict.fromkeys(("p_sums", "p_parts"), f"*{dtype}:16")
    arguments |= dict.fromkeys(("n_features", "n_chunks", "n_blocks"), "i32")
    return AotRow("layer_norm_grad", f"{dtype} sums", add_chunks_kernel, launch(BLOCK=ADDED_BLOCK), arguments)
