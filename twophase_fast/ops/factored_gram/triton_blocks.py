"""Blocks of Gram kernels over positions, in Triton: rows (sample, class, position), their products, sums over pairs.

A block of rows holds SAMPLES x CLASSES x POSITIONS of one operand, positions fastest. Rows beyond the operand's end
repeat its last valid row instead of being masked, which costs no register; what they contribute is never stored, or is
multiplied by a weight of zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import mul
from typing import Any

import torch
import triton.language as tl

from twophase_fast.ops._triton.aot import TARGETS
from twophase_fast.ops._triton.dot import dot
from twophase_fast.ops._triton.kernel import kernel
from twophase_fast.ops._triton.launch import Launch, LaunchTable
from twophase_fast.ops._triton.modes import FLOAT32_MODES

ACCUMULATORS = {torch.float32: tl.float32, torch.float64: tl.float64}
"""Type of the sums by dtype of `out`."""


def out_strides(out: torch.Tensor) -> tuple[int, ...]:
    """Return the strides of a Gram block over n, m, c, c'; 0 over the classes that it has not."""
    return (*out.stride(), 0, 0)[:4]


def is_wide(*blocks: tuple[torch.Tensor, tuple[int, ...]]) -> bool:
    """Return whether offsets within a block of some operand, given with the block's sizes, need more than 32 bits."""
    spans = (sum(map(mul, operand.stride(), sizes)) for operand, sizes in blocks)
    return any(span >= 2**31 for span in spans)


@kernel
def row_offsets(
    i_n, i_c, i_t, n_n, n_c, n_t, s_n, s_c, s_t,
    SAMPLES: tl.constexpr, CLASSES: tl.constexpr, POSITIONS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Return where the rows of a block start, [SAMPLES·CLASSES·POSITIONS], counted from its row (i_n, i_c, i_t)."""
    i = tl.arange(0, SAMPLES * CLASSES * POSITIONS)
    if WIDE:
        i = i.to(tl.int64)
    o_n = tl.minimum(i // (CLASSES * POSITIONS), n_n - 1 - i_n) * s_n
    o_c = tl.minimum(i // POSITIONS % CLASSES, n_c - 1 - i_c) * s_c
    o_t = tl.minimum(i % POSITIONS, n_t - 1 - i_t) * s_t
    return o_n + o_c + o_t


@kernel
def row_products(
    b_sum, p_x, p_y, o_x, o_y, s_x, s_y, s_xc, s_yc, n_depth, n_classes,
    SUMMED: tl.constexpr, DEPTH: tl.constexpr, EVEN: tl.constexpr, MODE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Return b_sum + x yᵀ for two blocks of rows; with SUMMED also summed over the classes, s_xc and s_yc apart."""
    i_k = tl.arange(0, DEPTH)
    o_k = i_k.to(tl.int64) if WIDE else i_k
    o_x = o_x[:, None] + o_k[None, :] * s_x  # [ROWS, DEPTH]
    o_y = o_y[None, :] + o_k[:, None] * s_y  # [DEPTH, COLUMNS]
    n_steps = tl.cdiv(n_depth, DEPTH)
    n_all = n_steps
    if SUMMED:
        n_all = n_steps * n_classes
    for i in range(n_all):
        k = i * DEPTH
        p_xk = p_x
        p_yk = p_y
        if SUMMED:
            k = i % n_steps * DEPTH
            p_xk = p_x + (i // n_steps).to(tl.int64) * s_xc
            p_yk = p_y + (i // n_steps).to(tl.int64) * s_yc
        p_xk = p_xk + tl.cast(k, tl.int64) * s_x
        p_yk = p_yk + tl.cast(k, tl.int64) * s_y
        if EVEN:
            b_x = tl.load(p_xk + o_x)
            b_y = tl.load(p_yk + o_y)
        else:
            b_x = tl.load(p_xk + o_x, mask=(i_k < n_depth - k)[None, :], other=0.0)
            b_y = tl.load(p_yk + o_y, mask=(i_k < n_depth - k)[:, None], other=0.0)
        b_sum = dot(b_x, b_y, b_sum, MODE)
    return b_sum


@kernel
def weighted_sum(
    b_w, b_v, SAMPLES: tl.constexpr, CLASSES: tl.constexpr, POSITIONS: tl.constexpr,
    SAMPLES2: tl.constexpr, CLASSES2: tl.constexpr, POSITIONS2: tl.constexpr,
):  # fmt: skip
    """Return Σ_{t,s} w[n,t,m,s] v[n,c,t,m,c',s] as [SAMPLES·CLASSES, SAMPLES2·CLASSES2]."""
    ROWS: tl.constexpr = SAMPLES * CLASSES
    COLUMNS: tl.constexpr = SAMPLES2 * CLASSES2
    if CLASSES * CLASSES2 == 1:
        b_sum = b_w * b_v
    else:
        b_v = tl.reshape(b_v, (SAMPLES, CLASSES, POSITIONS, SAMPLES2, CLASSES2, POSITIONS2))
        b_v = b_v * tl.reshape(b_w, (SAMPLES, 1, POSITIONS, SAMPLES2, 1, POSITIONS2))
        b_sum = tl.reshape(b_v, (ROWS * POSITIONS, COLUMNS * POSITIONS2))
    if POSITIONS2 > 1:
        b_sum = tl.sum(tl.reshape(b_sum, (ROWS * POSITIONS, COLUMNS, POSITIONS2)), 2)
    if POSITIONS > 1:
        b_sum = tl.sum(tl.reshape(b_sum, (ROWS, POSITIONS, COLUMNS)), 1)
    return b_sum


@kernel
def add_block(
    p_out, b_sum, i_n, i_c, i_m, i_e, n_n, n_c, n_m, n_e, s_on, s_oc, s_om, s_oe,
    SAMPLES: tl.constexpr, CLASSES: tl.constexpr, SAMPLES2: tl.constexpr, CLASSES2: tl.constexpr,
):  # fmt: skip
    """Add a block [SAMPLES·CLASSES, SAMPLES2·CLASSES2] to out[n, m, c, c']."""
    i = tl.arange(0, SAMPLES * CLASSES)
    j = tl.arange(0, SAMPLES2 * CLASSES2)
    o_n = (i_n + i // CLASSES).to(tl.int64)
    o_c = (i_c + i % CLASSES).to(tl.int64)
    o_m = (i_m + j // CLASSES2).to(tl.int64)
    o_e = (i_e + j % CLASSES2).to(tl.int64)
    p = p_out + (o_n * s_on + o_c * s_oc)[:, None] + (o_m * s_om + o_e * s_oe)[None, :]
    m = ((o_n < n_n) & (o_c < n_c))[:, None] & ((o_m < n_m) & (o_e < n_e))[None, :]
    tl.store(p, tl.load(p, mask=m, other=0.0) + b_sum, mask=m)


@kernel
def block_indices(n_n, n_m, n_e, SAMPLES: tl.constexpr, SAMPLES2: tl.constexpr, CLASSES: tl.constexpr,
                  CLASSES2: tl.constexpr, OUTPUT: tl.constexpr):  # fmt: skip
    """Return the first samples and classes (n, m, c, c') of this program's block; blocks of m follow each other."""
    i = tl.program_id(0)
    n_columns = tl.cdiv(n_m, SAMPLES2)
    n_rows = tl.cdiv(n_n, SAMPLES)
    i_class = i // (n_columns * n_rows)
    i_c = i_class * CLASSES
    i_e = i_class * CLASSES2
    if OUTPUT == "full":
        n_pairs = tl.cdiv(n_e, CLASSES2)
        i_c = i_class // n_pairs * CLASSES
        i_e = i_class % n_pairs * CLASSES2
    return i // n_columns % n_rows * SAMPLES, i % n_columns * SAMPLES2, i_c, i_e


def block_arguments(names: Sequence[str], dtype: str, *, aligned: bool, point: bool) -> dict[str, Any]:
    """Return the types of the run-time arguments of a Gram kernel for compilation ahead of time.

    Args:
        names: Names of its arguments; p_ pointers, n_ sizes, s_ strides. Rows are contiguous.
        dtype: Type of the elements.
        aligned: Whether operands, depths and strides are multiples of 16, as those of contiguous operands mostly are.
        point: Whether both sides have one position.
    """
    short = {"float32": "fp32", "float64": "fp64", "half": "bf16"}[dtype]
    total = tl.float64 if dtype == "float64" else tl.float32
    multiple = ":16" if aligned else ""
    arguments: dict[str, Any] = {name: f"*{short}{multiple}" for name in names if name.startswith("p_")}
    arguments["p_out"] = f"*{total}{multiple}"
    arguments |= {name: "i32" for name in names if name.startswith("n_")}
    arguments |= {name: f"i32{multiple}" for name in names if name in ("n_d", "n_p") or name.startswith("s_")}
    arguments |= {name: 1 for name in names if name in ("s_ad", "s_gp", "s_a2d", "s_g2p")}
    arguments |= {name: "i32" for name in names if name.startswith("s_o")}
    if point:
        arguments |= {"n_t": 1, "n_s": 1}
    return {**arguments, "ACC": total}


def distinct(table: LaunchTable) -> Iterator[tuple[str, str, str, Launch]]:
    """Yield (mode, dtype, alignment, launch) for all launches of a table, each once, if some target has the mode."""
    seen = dict.fromkeys((key[:3], chosen) for key, chosen in table.all())
    for (mode, dtype, alignment), chosen in seen:
        if targets_of(mode):
            yield mode, dtype, alignment, chosen


def targets_of(mode: str) -> tuple[str, ...]:
    """Return the targets of ahead-of-time compilation on which some precision runs in `mode`."""
    return tuple(name for name, target in TARGETS.items() if mode in FLOAT32_MODES[target.platform].values())
