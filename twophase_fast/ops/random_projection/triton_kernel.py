"""Random projections in Triton: signs are made in registers, a word of 32 at a time, beside the product they enter.

Where blocks of the result are too few to fill the GPU, the terms are cut into slices whose sums are written apart and
added in a fixed order.
"""

from __future__ import annotations

from itertools import product

import torch
import triton.language as tl

from twophase_fast.ops._triton import modes
from twophase_fast.ops._triton.aot import AotRow
from twophase_fast.ops._triton.dot import dot
from twophase_fast.ops._triton.kernel import kernel
from twophase_fast.ops._triton.launch import Launch
from twophase_fast.ops.factored_gram.triton_blocks import ACCUMULATORS, targets_of
from twophase_fast.ops.random_projection.config import FULL_GRID, LAUNCHES, LEAST_SLICE


@kernel
def philox_words(q, word, seed):
    """Return 32 signs of row q, as bits, for every row [K, 1] and number of a word [1, W]: Philox-4x32-10."""
    zero = q * 0 + word * 0
    c0 = (q + zero).to(tl.uint32)
    c1 = ((q >> 32) + zero).to(tl.uint32)
    c2 = (word // 4 + zero).to(tl.uint32)
    c3 = zero.to(tl.uint32)
    k0 = seed.to(tl.uint32)
    k1 = (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        p0 = c0.to(tl.uint64) * 0xD2511F53
        p2 = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (p2 >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (p0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = p2.to(tl.uint32)
        c3 = p0.to(tl.uint32)
        k0 = (k0.to(tl.uint64) + 0x9E3779B9).to(tl.uint32)
        k1 = (k1.to(tl.uint64) + 0xBB67AE85).to(tl.uint32)
    which = word % 4 + zero
    return tl.where(which < 2, tl.where(which == 0, c0, c1), tl.where(which == 2, c2, c3))


@kernel
def projection_kernel(
    p_out, p_x, seed, offset, n_rows, n_depth, n_directions, n_slice,
    s_slice, s_or, s_od, s_xr, s_xq,
    ADD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    MODE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """out[slice, r, j] = Σ_{q in slice} x[r, q] S[offset + q, j], added to what is there if ADD."""
    i = tl.program_id(0)
    n_columns = tl.cdiv(n_directions, COLUMNS)
    n_blocks = tl.cdiv(n_rows, ROWS)
    i_column = i % n_columns * COLUMNS
    i_row = i // n_columns % n_blocks * ROWS
    i_slice = (i // (n_columns * n_blocks)).to(tl.int64)
    seed = tl.cast(seed, tl.int64)
    first = i_slice * n_slice
    last = tl.minimum(first + n_slice, n_depth)
    r = i_row + tl.arange(0, ROWS)
    m_r = r < n_rows
    o_r = r.to(tl.int64) * s_xr
    i_q = tl.arange(0, DEPTH)
    word = i_column // 32 + tl.arange(0, COLUMNS // 32)
    b_sum = tl.zeros((ROWS, COLUMNS), dtype=ACC)
    for step in range(tl.cdiv(last - first, DEPTH)):
        q = first + step * DEPTH + i_q
        b_x = tl.load(p_x + o_r[:, None] + q[None, :] * s_xq, mask=m_r[:, None] & (q < last)[None, :], other=0.0)
        words = philox_words((offset + q)[:, None], word[None, :].to(tl.int64), seed)
        bits = (words[:, :, None] >> tl.arange(0, 32)[None, None, :].to(tl.uint32)) & 1
        b_s = tl.where(tl.reshape(bits, (DEPTH, COLUMNS)) == 1, 1.0, -1.0).to(ACC)
        b_sum = dot(b_x, b_s, b_sum, MODE)
    j = i_column + tl.arange(0, COLUMNS)
    p = p_out + i_slice * s_slice + r[:, None].to(tl.int64) * s_or + j[None, :].to(tl.int64) * s_od
    m = m_r[:, None] & (j < n_directions)[None, :]
    if ADD:
        b_sum += tl.load(p, mask=m, other=0.0)
    tl.store(p, b_sum, mask=m)


def random_projection(x: torch.Tensor, directions: int, seed: int, offset: int, precision: str) -> torch.Tensor:
    """Return x S of x [R, P]."""
    out = x.new_zeros(x.shape[0], directions)
    random_projection_(out, x, seed, offset, precision)
    return out


def random_projection_(out: torch.Tensor, x: torch.Tensor, seed: int, offset: int, precision: str) -> None:
    """Add x S to `out`."""
    if not out.numel() or not x.numel():
        return
    mode = modes.mode(precision, x.dtype)
    key = mode, str(x.dtype).removeprefix("torch.")
    chosen = LAUNCHES.choose(key, (*x.shape, out.shape[1]), x.device)
    count, length = slices(x.shape[0], x.shape[1], out.shape[1], chosen)
    if count == 1:
        return _start(out.unsqueeze(0), x, seed, offset, length, mode, chosen, add=True)
    parts = out.new_empty(count, *out.shape)
    _start(parts, x, seed, offset, length, mode, chosen, add=False)
    out += parts.sum(0)


def slices(rows: int, depth: int, directions: int, chosen: Launch) -> tuple[int, int]:
    """Return into how many slices the terms are cut, and the terms of each."""
    blocks = -(-rows // chosen["ROWS"]) * -(-directions // chosen["COLUMNS"])
    count = max(1, min(FULL_GRID // blocks, depth // LEAST_SLICE))
    length = -(-depth // count)
    return -(-depth // length), length


def _start(
    out: torch.Tensor, x: torch.Tensor, seed: int, offset: int, length: int, mode: str, chosen: Launch, *, add: bool
) -> None:
    count, rows, directions = out.shape
    blocks = -(-rows // chosen["ROWS"]) * -(-directions // chosen["COLUMNS"])
    projection_kernel[(count * blocks,)](
        out, x, seed, offset, rows, x.shape[1], directions, length, *out.stride(), *x.stride(),
        ADD=add, MODE=mode, ACC=ACCUMULATORS[x.dtype], **chosen.arguments(),
    )  # fmt: skip


def aot_rows() -> list[AotRow]:
    """Return the launch configurations, for rows that start at multiples of 16 elements and for any."""
    return [
        AotRow(
            "random_projection",
            f"{mode} {dtype} {'aligned' if multiple else 'any'} {'added' if add else 'apart'}",
            projection_kernel,
            chosen,
            _aot_arguments(mode, dtype, multiple, add=add),
            targets=targets_of(mode),
        )
        for (mode, dtype), chosen in LAUNCHES.all()
        if targets_of(mode)
        for multiple, add in product((":16", ""), (False, True))
    ]


def _aot_arguments(mode: str, dtype: str, multiple: str, *, add: bool) -> dict[str, object]:
    pointer = f"*{'fp64' if dtype == 'float64' else 'fp32'}{multiple}"
    sizes = dict.fromkeys(("n_rows", "n_directions"), "i32")
    sizes |= dict.fromkeys(("n_depth", "n_slice", "s_slice", "s_or", "s_xr"), f"i32{multiple}")
    numbers = {"seed": "i64", "offset": "i64", "s_od": 1, "s_xq": 1, "ADD": add, "MODE": mode}
    return {"p_out": pointer, "p_x": pointer, **sizes, **numbers, "ACC": ACCUMULATORS[getattr(torch, dtype)]}
