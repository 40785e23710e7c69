"""Gram blocks on the GPU: launches of the kernels in `kernels.py`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton.language as tl

from twophase_fast.ops._triton.launch import Launch
from twophase_fast.ops._triton.modes import architecture, mode
from twophase_fast.ops._triton.split import multiprocessors, split_sum
from twophase_fast.ops.gram import config
from twophase_fast.ops.gram.aot import aot_rows
from twophase_fast.ops.gram.kernels import gram_kernel, mirror_kernel, reduce_kernel
from twophase_fast.ops.gram.reference import result_dtype

__all__ = ["aot_rows", "gram", "gram_", "symmetrize_"]

LONGEST_STEP = 128
"""Most terms that a kernel adds in one step."""

REDUCED_ROWS = 16
"""Rows of a tile whose partial sums one program adds."""


def gram(x: torch.Tensor, y: torch.Tensor | None, precision: str) -> torch.Tensor:
    """Return x yᵀ."""
    right = x if y is None else y
    out = x.new_empty((*x.shape[:-1], right.shape[-2]), dtype=result_dtype(x.dtype))
    _product(out, x, y, precision, accumulate=False)
    if y is None:
        symmetrize_(out)
    return out


def gram_(out: torch.Tensor, x: torch.Tensor, y: torch.Tensor | None, precision: str) -> None:
    """Add x yᵀ to `out`; with y=None only tiles that meet the upper triangle."""
    _product(out, x, y, precision, accumulate=True)


def symmetrize_(out: torch.Tensor) -> None:
    """Mirror the strictly upper triangle to the lower one."""
    matrices = _batched(out)
    batch, rows, _ = matrices.shape
    count = -(-rows // config.MIRROR_BLOCK)
    tiles = count * (count + 1) // 2
    if out.numel():
        mirror_kernel[(tiles * batch,)](out, rows, *matrices.stride(), count, tiles, BLOCK=config.MIRROR_BLOCK)


def launch_key(dtype: torch.dtype, mode_name: str, rows: int, columns: int) -> tuple[str, ...]:
    """Return the row of the launch table."""
    name = {torch.float32: "float32", torch.float64: "float64"}.get(dtype, "half")
    return architecture(), mode_name, name, config.shape_class(rows, columns)


@dataclass(frozen=True)
class Tiling:
    """The tiles of a result: rows and columns of them, how many are computed, and whether only a triangle is."""

    row_tiles: int
    col_tiles: int
    tiles: int
    triangular: bool


def tiling(rows: int, columns: int, block: int, triangular: bool) -> Tiling:
    """Return the tiles of a [rows, columns] result."""
    row_tiles, col_tiles = -(-rows // block), -(-columns // block)
    tiles = row_tiles * (row_tiles + 1) // 2 if triangular else row_tiles * col_tiles
    return Tiling(row_tiles, col_tiles, tiles, triangular)


def accumulator(dtype: torch.dtype) -> tl.dtype:
    """Return the Triton dtype of sums of products of `dtype`."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def is_wide(tensor: torch.Tensor, block: int) -> bool:
    """Return whether offsets within a tile of `block` rows or columns, or numbers of terms, need more than 32 bits."""
    return max(sum(tensor.stride()[-2:]) * max(block, LONGEST_STEP), *tensor.shape) >= 2**31


def _batched(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.unsqueeze(0) if tensor.ndim == 2 else tensor


def _product(out: torch.Tensor, x: torch.Tensor, y: torch.Tensor | None, precision: str, *, accumulate: bool) -> None:
    if not out.numel():
        return
    if not x.shape[-1]:
        if not accumulate:
            out.zero_()
        return
    name = mode(precision, x.dtype)
    batch, rows, columns = _batched(out).shape

    def run(chosen: Launch, into: torch.Tensor = out) -> None:
        _launch(into, x, y, name, accumulate, chosen)

    def trial(chosen: Launch) -> None:
        run(chosen, torch.empty_like(out))

    key = launch_key(x.dtype, name, rows, columns)
    run(config.GRAM.choose(key, (batch, rows, columns, x.shape[-1]), x.device, trial))


def _launch(
    out: torch.Tensor, x: torch.Tensor, y: torch.Tensor | None, name: str, accumulate: bool, chosen: Launch
) -> None:
    left, right, result = _batched(x), _batched(x if y is None else y), _batched(out)
    batch, rows, columns = result.shape
    block, terms = chosen["BLOCK"], x.shape[-1]
    cut = tiling(rows, columns, block, triangular=y is None)
    processors = multiprocessors(x.device)
    split = split_sum(terms, batch * cut.tiles, processors, chosen["DEPTH"], *config.sums(x.device))
    items = batch * cut.tiles * split.parts
    partial = partial_sums(out, items, split.parts, block)
    gram_kernel[(min(items, processors * config.PROGRAMS),)](
        x, x if y is None else y, out, partial, rows, columns, terms,
        *left.stride(), *right.stride(), *result.stride(),
        cut.row_tiles, cut.col_tiles, cut.tiles, items, split.parts, split.chunks, split.chunk,
        MODE=name, ACC=accumulator(x.dtype), TRIANGULAR=cut.triangular, SPLIT=split.parts > 1, ACCUMULATE=accumulate,
        WIDE=any(is_wide(tensor, block) for tensor in (left, right, result)), **chosen.arguments(),
    )  # fmt: skip
    if split.parts > 1:
        add_parts(result, partial, cut, split.parts, block, accumulate)


def partial_sums(out: torch.Tensor, items: int, parts: int, block: int) -> torch.Tensor:
    """Return memory for the partial sums of all items; `out` itself, unused, where sums are not split."""
    return out if parts == 1 else out.new_empty((items, block, block))


def add_parts(
    result: torch.Tensor, partial: torch.Tensor, cut: Tiling, parts: int, block: int, accumulate: bool
) -> None:
    """Write the sums over parts, in their order, to `result` [B, N, M]."""
    batch, rows, columns = result.shape
    reduced = min(REDUCED_ROWS, block)
    reduce_kernel[(batch * cut.tiles * (block // reduced),)](
        partial, result, rows, columns, *result.stride(), cut.row_tiles, cut.col_tiles, cut.tiles, parts,
        BLOCK=block, ROWS=reduced, ACC=accumulator(result.dtype), TRIANGULAR=cut.triangular, ACCUMULATE=accumulate,
        WIDE=is_wide(result, block),
    )  # fmt: skip
