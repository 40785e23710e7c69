"""Per-sample gradients in Triton: one product per sample (and group of channels), classes stacked into rows.

The rows (c, i) of a sample's product are the outputs of all classes, so that a block of its inputs is read once for all
of them; the columns are its inputs, for a convolution the pairs (input channel, tap), gathered from the image as they
are needed. One program writes one block of rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import torch
import triton.language as tl

from twophase_fast.ops import _operands
from twophase_fast.ops._triton import modes
from twophase_fast.ops._triton.aot import AotRow
from twophase_fast.ops._triton.dot import dot
from twophase_fast.ops._triton.kernel import Kernel, kernel
from twophase_fast.ops._triton.launch import Launch, LaunchTable
from twophase_fast.ops.factored_gram.triton_blocks import ACCUMULATORS, targets_of
from twophase_fast.ops.per_sample_grad import reference
from twophase_fast.ops.per_sample_grad.config import CONV, FEW_POSITIONS, LINEAR, OUTER


@kernel
def store_block(
    p_out, b_sum, i_row, i_column, n_rows, n_columns, n_outputs, s_oc, s_op,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Store a block of rows (class, output) and contiguous columns."""
    r = i_row + tl.arange(0, ROWS)
    j = i_column + tl.arange(0, COLUMNS)
    o_row = (r // n_outputs).to(tl.int64) * s_oc + (r % n_outputs).to(tl.int64) * s_op
    m = (r < n_rows)[:, None] & (j < n_columns)[None, :]
    tl.store(p_out + o_row[:, None] + j[None, :], b_sum, mask=m)


@kernel
def linear_kernel(
    p_out, p_a, p_g, n_c, n_t, n_p, n_d,
    s_on, s_oc, s_op, s_an, s_at, s_ad, s_gn, s_gc, s_gt, s_gp,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, MODE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """out[n,c,i,j] = Σ_t g[n,c,t,i] a[n,t,j]; DEPTH = 1 adds outer products, position by position."""
    i = tl.program_id(0)
    n_columns = tl.cdiv(n_d, COLUMNS)
    n_rows = tl.cdiv(n_c * n_p, ROWS)
    i_column = i % n_columns * COLUMNS
    i_row = i // n_columns % n_rows * ROWS
    i_n = (i // (n_columns * n_rows)).to(tl.int64)
    p_a += i_n * s_an
    p_g += i_n * s_gn
    r = i_row + tl.arange(0, ROWS)
    j = i_column + tl.arange(0, COLUMNS)
    m_r = r < n_c * n_p
    m_j = j < n_d
    o_r = (r // n_p).to(tl.int64) * s_gc + (r % n_p).to(tl.int64) * s_gp
    o_j = j.to(tl.int64) * s_ad
    b_sum = tl.zeros((ROWS, COLUMNS), dtype=ACC)
    if DEPTH == 1:
        for t in range(n_t):
            b_g = tl.load(p_g + tl.cast(t, tl.int64) * s_gt + o_r, mask=m_r, other=0.0)
            b_a = tl.load(p_a + tl.cast(t, tl.int64) * s_at + o_j, mask=m_j, other=0.0)
            b_sum += b_g[:, None] * b_a[None, :]
    else:
        i_t = tl.arange(0, DEPTH)
        o_g = o_r[:, None] + i_t[None, :].to(tl.int64) * s_gt  # [ROWS, DEPTH]
        o_a = o_j[None, :] + i_t[:, None].to(tl.int64) * s_at  # [DEPTH, COLUMNS]
        for t in range(0, n_t, DEPTH):
            m_t = i_t < n_t - t
            b_g = tl.load(p_g + tl.cast(t, tl.int64) * s_gt + o_g, mask=m_r[:, None] & m_t[None, :], other=0.0)
            b_a = tl.load(p_a + tl.cast(t, tl.int64) * s_at + o_a, mask=m_j[None, :] & m_t[:, None], other=0.0)
            b_sum = dot(b_g, b_a, b_sum, MODE)
    store_block(p_out + i_n * s_on, b_sum, i_row, i_column, n_c * n_p, n_d, n_p, s_oc, s_op, ROWS, COLUMNS)


@kernel
def conv_kernel(
    p_out, p_x, p_g, n_c, n_o, n_i, n_groups,
    n_q0, n_q1, n_q2, n_x0, n_x1, n_x2, n_k0, n_k1, n_k2,
    stride0, stride1, stride2, pad0, pad1, pad2, dilation0, dilation1, dilation2,
    s_on, s_oc, s_oo, s_xn, s_xc, s_x0, s_x1, s_x2, s_gn, s_gc, s_go, s_g0, s_g1, s_g2,
    FLAT: tl.constexpr, AXES: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, MODE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """out[n,c,o,i,k] = Σ_q g[n,c,o,q] x[n,i,q·stride + k·dilation − pad], channels o and i within a group.

    Three spatial axes of which the last AXES are not trivial; with FLAT, those of g have one stride, s_g2.
    """
    n_taps = n_k0 * n_k1 * n_k2
    n_places = n_q0 * n_q1 * n_q2
    i = tl.program_id(0)
    n_columns = tl.cdiv(n_i * n_taps, COLUMNS)
    n_rows = tl.cdiv(n_c * n_o, ROWS)
    i_column = i % n_columns * COLUMNS
    i_row = i // n_columns % n_rows * ROWS
    i_group = (i // (n_columns * n_rows) % n_groups).to(tl.int64)
    i_n = (i // (n_columns * n_rows) // n_groups).to(tl.int64)
    p_g += i_n * s_gn + i_group * n_o * s_go
    p_x += i_n * s_xn + i_group * n_i * s_xc
    r = i_row + tl.arange(0, ROWS)
    m_r = r < n_c * n_o
    o_r = (r // n_o).to(tl.int64) * s_gc + (r % n_o).to(tl.int64) * s_go
    j = i_column + tl.arange(0, COLUMNS)
    m_j = j < n_i * n_taps
    k = j % n_taps
    x0 = k // (n_k1 * n_k2) * dilation0 - pad0  # where the tap reads, counted from q·stride
    x1 = k // n_k2 % n_k1 * dilation1 - pad1
    x2 = k % n_k2 * dilation2 - pad2
    o_j = (j // n_taps).to(tl.int64) * s_xc + x0.to(tl.int64) * s_x0 + x1.to(tl.int64) * s_x1 + x2.to(tl.int64) * s_x2
    i_q = tl.arange(0, DEPTH)
    b_sum = tl.zeros((ROWS, COLUMNS), dtype=ACC)
    for start in range(0, n_places, DEPTH):
        q = start + i_q
        m_q = q < n_places
        q0 = q // (n_q1 * n_q2)
        q1 = q // n_q2 % n_q1
        q2 = q % n_q2
        if FLAT:
            o_q = q.to(tl.int64) * s_g2
        else:
            o_q = q0.to(tl.int64) * s_g0 + q1.to(tl.int64) * s_g1 + q2.to(tl.int64) * s_g2
        q0 *= stride0
        q1 *= stride1
        q2 *= stride2
        o_x = q0.to(tl.int64) * s_x0 + q1.to(tl.int64) * s_x1 + q2.to(tl.int64) * s_x2
        at2 = q2[:, None] + x2[None, :]
        m_x = m_q[:, None] & m_j[None, :] & (at2 >= 0) & (at2 < n_x2)
        if AXES > 1:
            at1 = q1[:, None] + x1[None, :]
            m_x = m_x & (at1 >= 0) & (at1 < n_x1)
        if AXES > 2:
            at0 = q0[:, None] + x0[None, :]
            m_x = m_x & (at0 >= 0) & (at0 < n_x0)
        b_g = tl.load(p_g + o_r[:, None] + o_q[None, :], mask=m_r[:, None] & m_q[None, :], other=0.0)
        b_x = tl.load(p_x + o_x[:, None] + o_j[None, :], mask=m_x, other=0.0)
        b_sum = dot(b_g, b_x, b_sum, MODE)
    p_out += i_n * s_on + i_group * n_o * s_oo
    store_block(p_out, b_sum, i_row, i_column, n_c * n_o, n_i * n_taps, n_o, s_oc, s_oo, ROWS, COLUMNS)


@dataclass(frozen=True)
class Problem:
    """One launch: rows x columns of `samples` products (a sample and a group of channels each), summed over depth."""

    kernel: Kernel
    table: LaunchTable
    out: torch.Tensor
    operands: tuple[torch.Tensor, ...]
    numbers: tuple[int, ...]
    constants: dict[str, Any]
    products: int
    rows: int
    columns: int
    mode: str

    def run(self) -> None:
        """Choose a launch configuration and start it, unless there is nothing to do."""
        if not self.out.numel():
            return
        dtype = str(self.out.dtype).removeprefix("torch.")
        sizes = self.products, self.rows, self.columns
        self.start(self.table.choose((self.mode, dtype), sizes, self.out.device, self.start))

    def start(self, chosen: Launch) -> None:
        """Launch the kernel."""
        blocks = -(-self.rows // chosen["ROWS"]) * -(-self.columns // chosen["COLUMNS"])
        self.kernel[(self.products * blocks,)](
            self.out, *self.operands, *self.numbers, **self.constants,
            MODE=self.mode, ACC=ACCUMULATORS[self.out.dtype], **chosen.arguments(),
        )  # fmt: skip


def per_sample_grad_out(out: torch.Tensor, a: torch.Tensor, g: torch.Tensor, precision: str) -> None:
    """Write the gradients to `out`, whose last axis is contiguous."""
    samples, classes, positions, outputs = g.shape
    inputs = a.shape[2]
    sizes = classes, positions, outputs, inputs
    strides = *out.stride()[:3], *a.stride(), *g.stride()
    few = positions <= FEW_POSITIONS
    Problem(
        linear_kernel,
        OUTER if few else LINEAR,
        out,
        (a, g),
        (*sizes, *strides),
        {},
        samples,
        classes * outputs,
        inputs,
        "ieee" if few else modes.mode(precision, a.dtype),
    ).run()


per_sample_grad = _operands.into_new(reference.new_linear, per_sample_grad_out)
"""The gradients [N, C, p, d] of a [N, T, d], g [N, C, T, p], as a new tensor."""


def per_sample_conv_grad_out(
    out: torch.Tensor,
    x: torch.Tensor,
    g: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    precision: str,
) -> None:
    """Write the gradients to `out`, contiguous from the fourth axis on; missing spatial axes run with one place."""
    (samples, classes, cout), (_, channels) = g.shape[:3], x.shape[:2]
    rows, cin = cout // groups, channels // groups
    geometry = (
        *(_three(sizes, 1) for sizes in (g.shape[3:], x.shape[2:], kernel_size, stride)),
        _three(padding, 0),
        _three(dilation, 1),
    )
    strides = (
        *out.stride()[:3],
        *(*x.stride()[:2], *_three(x.stride()[2:], 0)),
        *(*g.stride()[:3], *_three(g.stride()[3:], 0)),
    )
    Problem(
        conv_kernel,
        CONV,
        out,
        (x, g),
        (classes, rows, cin, groups, *chain(*geometry), *strides),
        {"FLAT": _is_flat(g), "AXES": x.ndim - 2},
        samples * groups,
        classes * rows,
        cin * prod(kernel_size),
        modes.mode(precision, x.dtype),
    ).run()


per_sample_conv_grad = _operands.into_new(reference.new_conv, per_sample_conv_grad_out)
"""The gradient of every sample and class with respect to the weight of a convolution, as a new tensor."""


def _three(of_axes: Sequence[int], neutral: int) -> tuple[int, ...]:
    """Return one number per spatial axis of three, the last ones given."""
    return (*[neutral] * (3 - len(of_axes)), *of_axes)


def _is_flat(g: torch.Tensor) -> bool:
    """Return whether the spatial axes of g are like one axis in memory."""
    return all(g.stride(i) == g.stride(i + 1) * g.shape[i + 1] or g.shape[i] == 1 for i in range(3, g.ndim - 1))


_LINEAR_STRIDES = {
    "rows aligned": ({"s_ad": 1, "s_gp": 1}, ":16"),
    "rows any": ({"s_ad": 1, "s_gp": 1}, ""),
    "positions any": ({"s_at": 1, "s_gt": 1}, ""),
}
"""Strides of one, and alignment of sizes and other strides, that are compiled ahead of time."""

_CONV_AXES = {
    "1-D": {"AXES": 1, **{f"{name}{i}": 1 for i in (0, 1) for name in ("n_q", "n_x", "n_k", "stride", "dilation")}},
    "2-D": {"AXES": 2, **{f"{name}0": 1 for name in ("n_q", "n_x", "n_k", "stride", "dilation")}},
    "3-D": {"AXES": 3},
}
"""Numbers of spatial axes that are compiled ahead of time."""


def aot_rows() -> list[AotRow]:
    """Return the launch configurations with the strides and numbers of axes that layers have."""
    rows = [
        _aot_row(linear_kernel, key, chosen, label, constants, multiple)
        for table in (LINEAR, OUTER)
        for key, chosen in _distinct(table)
        for label, (constants, multiple) in _LINEAR_STRIDES.items()
    ]
    return rows + [
        _aot_row(conv_kernel, key, chosen, label, {**axes, "s_x2": 1, "s_g2": 1, "FLAT": label != "3-D"}, "")
        for key, chosen in _distinct(CONV)
        for label, axes in _CONV_AXES.items()
    ]


def _distinct(table: LaunchTable) -> list[tuple[tuple[str, ...], Launch]]:
    """Return (key, launch) of a table for the modes that some target has."""
    return [(key, chosen) for key, chosen in table.all() if targets_of(key[0])]


def _aot_row(
    kernel: Kernel, key: tuple[str, ...], chosen: Launch, label: str, constants: dict[str, Any], multiple: str
) -> AotRow:
    mode, dtype = key
    names = [parameter.name for parameter in kernel.params]
    pointers = {name: f"*{'fp64' if dtype == 'float64' else 'fp32'}:16" for name in names if name.startswith("p_")}
    numbers = {name: f"i32{multiple}" for name in names if name.startswith(("n_t", "n_p", "n_d", "s_"))}
    others = dict.fromkeys(names, "i32")
    types = {"MODE": mode, "ACC": ACCUMULATORS[getattr(torch, dtype)]}
    arguments = {**others, **pointers, **numbers, **constants, **types}
    for name in dict(chosen.constants):
        del arguments[name]
    op = "per_sample_grad" if kernel is linear_kernel else "per_sample_conv_grad"
    return AotRow(op, f"{mode} {dtype} {label}", kernel, chosen, arguments, targets=targets_of(mode))
