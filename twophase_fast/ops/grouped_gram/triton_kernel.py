"""Grouped Gram blocks on the GPU: one launch adds up all segments, those without wide loads in one of their own."""

from __future__ import annotations

from functools import lru_cache
from itertools import chain

import torch
import triton.language as tl

from twophase_fast.ops._triton.launch import Launch
from twophase_fast.ops._triton.modes import mode
from twophase_fast.ops._triton.split import multiprocessors, parts_of
from twophase_fast.ops._triton.tables import aligned, current_stream, is_recorded, table
from twophase_fast.ops.gram import config
from twophase_fast.ops.gram.triton_kernel import (
    accumulator,
    add_parts,
    gram_,
    is_wide,
    launch_key,
    partial_sums,
    tiling,
)
from twophase_fast.ops.grouped_gram.aot import aot_rows
from twophase_fast.ops.grouped_gram.kernels import grouped_gram_kernel
from twophase_fast.ops.grouped_gram.schedule import schedule

__all__ = ["aot_rows", "grouped_gram_"]

_TYPES = {torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def grouped_gram_(out: torch.Tensor, xs: list[torch.Tensor], ys: list[torch.Tensor], precision: str) -> None:
    """Add x yᵀ to `out` for every pair of segments; with an empty `ys` only tiles that meet the upper triangle."""
    if is_recorded(out.device):
        for x, y in zip(xs, ys or [None] * len(xs), strict=True):
            gram_(out, x, y, precision)
        return
    by_width: dict[bool, list[int]] = {}
    for index, x in enumerate(xs):
        if out.numel() and x.shape[1]:
            by_width.setdefault(_is_aligned(x, ys[index] if ys else x), []).append(index)
    for chosen in by_width.values():
        _add(out, [xs[k] for k in chosen], [ys[k] for k in chosen] if ys else [], precision)


def _add(out: torch.Tensor, xs: list[torch.Tensor], ys: list[torch.Tensor], precision: str) -> None:
    """Add segments in one launch."""
    name = mode(precision, xs[0].dtype)

    def run(chosen: Launch, into: torch.Tensor = out) -> None:
        _launch(into, xs, ys, name, chosen)

    def trial(chosen: Launch) -> None:
        run(chosen, torch.empty_like(out))

    sizes = (*out.shape, sum(x.shape[1] for x in xs), len(xs))
    run(config.GRAM.choose(launch_key(xs[0].dtype, name, *out.shape), sizes, out.device, trial))


def _launch(out: torch.Tensor, xs: list[torch.Tensor], ys: list[torch.Tensor], name: str, chosen: Launch) -> None:
    rows, columns = out.shape
    block, dtype = chosen["BLOCK"], xs[0].dtype
    cut = tiling(rows, columns, block, triangular=not ys)
    lengths = tuple(x.shape[1] for x in xs)
    pieces, parts, width = _schedule(lengths, cut.tiles, chosen["DEPTH"], out.device, current_stream(out.device))
    items = cut.tiles * parts
    partial = partial_sums(out, items, parts, block)
    entries, vector = _operands(xs, ys or xs)
    grouped_gram_kernel[(min(items, multiprocessors(out.device) * config.PROGRAMS),)](
        entries, pieces, out, partial, rows, columns, *out.stride(), cut.row_tiles, cut.col_tiles, items, parts, width,
        MODE=name, ACC=accumulator(dtype), DTYPE=_TYPES[dtype], TRIANGULAR=cut.triangular, SPLIT=parts > 1,
        VECTOR=vector, WIDE=any(is_wide(tensor, block) for tensor in (out, *xs, *ys)), **chosen.arguments(),
    )  # fmt: skip
    if parts > 1:
        add_parts(out.unsqueeze(0), partial, cut, parts, block, accumulate=True)


@lru_cache(maxsize=64)
def _schedule(
    lengths: tuple[int, ...], tiles: int, step: int, device: torch.device, stream: int
) -> tuple[torch.Tensor, int, int]:
    """Return the schedule on the device, for a stream, its number of parts, and of pieces per part."""
    longest, shortest = config.sums(device)
    wanted = parts_of(sum(lengths), tiles, multiprocessors(device), step, shortest)
    cut = schedule(lengths, wanted, step, longest)
    return table(tuple(chain.from_iterable(chain.from_iterable(cut))), device), len(cut), len(cut[0])


def _operands(xs: list[torch.Tensor], ys: list[torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Return the table of addresses and strides, and the elements in 16 bytes, or 0 if a segment has no wide loads."""
    entries = [
        (x.data_ptr(), y.data_ptr(), x.stride(0), y.stride(0), x.stride(1), y.stride(1))
        for x, y in zip(xs, ys, strict=True)
    ]
    vector = 16 // xs[0].element_size()
    wide = all(_is_aligned(x, y) for x, y in zip(xs, ys, strict=True))
    return table(tuple(chain.from_iterable(entries)), xs[0].device), vector if wide else 0


def _is_aligned(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Return whether a segment can be read 16 bytes at a time."""
    vector = 16 // x.element_size()
    dense = x.shape[1] % vector == 0 and x.stride(1) == y.stride(1) == 1
    return dense and aligned((x.data_ptr(), y.data_ptr())) and aligned((x.stride(0), y.stride(0)), vector)
