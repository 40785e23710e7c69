"""Factored Gram blocks in Triton: the products over inputs and outputs, their Hadamard product and its sum, fused.

One program computes one block of samples n x m (and classes c x c'): for each pair of blocks of positions the weights
w = a aᵀ and the products v = g gᵀ stay in registers, and Σ w·v is added to `out` once. T = S = 1 is the case of one
position per block. Where many positions and classes make Jacobians cheaper, slices of them go through `gram`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import torch
import triton.language as tl

from twophase_fast.ops import _operands
from twophase_fast.ops._checks import FLOATS
from twophase_fast.ops._triton import modes
from twophase_fast.ops._triton.aot import AotRow
from twophase_fast.ops._triton.kernel import kernel
from twophase_fast.ops._triton.launch import Launch
from twophase_fast.ops.factored_gram import materialised
from twophase_fast.ops.factored_gram.config import Sizes
from twophase_fast.ops.factored_gram.triton_blocks import (
    ACCUMULATORS,
    add_block,
    block_arguments,
    block_indices,
    distinct,
    is_wide,
    out_strides,
    row_offsets,
    row_products,
    targets_of,
    weighted_sum,
)
from twophase_fast.ops.factored_gram.triton_config import (
    JACOBIAN_BYTES,
    JACOBIAN_INPUTS,
    LAUNCHES,
    Split,
    choose,
    method,
    programs,
    split,
)
from twophase_fast.ops.gram.triton_kernel import gram_, symmetrize_
from twophase_fast.ops.per_sample_grad.triton_kernel import per_sample_grad_out

_KERNELS = materialised.Kernels(gram_, per_sample_grad_out, JACOBIAN_BYTES, JACOBIAN_INPUTS)

Side: TypeAlias = tuple[torch.Tensor, torch.Tensor]


@kernel
def factored_gram_kernel(
    p_out, p_a, p_g, p_a2, p_g2,
    n_n, n_m, n_c, n_e, n_t, n_s, n_d, n_p,
    s_on, s_om, s_oc, s_oe,
    s_an, s_at, s_ad, s_gn, s_gc, s_gt, s_gp,
    s_a2m, s_a2s, s_a2d, s_g2m, s_g2e, s_g2s, s_g2p,
    OUTPUT: tl.constexpr, SYMMETRIC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    CLASSES: tl.constexpr, CLASSES2: tl.constexpr, POSITIONS: tl.constexpr, POSITIONS2: tl.constexpr,
    EVEN: tl.constexpr, MODE: tl.constexpr, ACC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out[n,m,c,c'] += Σ_{t,s} (a[n,t]·a2[m,s]) (g[n,c,t]·g2[m,c',s]), or its trace or diagonal over c = c'."""
    N: tl.constexpr = ROWS // (CLASSES * POSITIONS)
    M: tl.constexpr = COLUMNS // (CLASSES2 * POSITIONS2)
    SUMMED: tl.constexpr = OUTPUT == "trace"
    i_n, i_m, i_c, i_e = block_indices(n_n, n_m, n_e, N, M, CLASSES, CLASSES2, OUTPUT)
    if SYMMETRIC:  # noqa: SIM102
        if i_m + M <= i_n:  # below the diagonal
            return
    p_a += i_n.to(tl.int64) * s_an
    p_a2 += i_m.to(tl.int64) * s_a2m
    p_g += i_n.to(tl.int64) * s_gn + i_c.to(tl.int64) * s_gc
    p_g2 += i_m.to(tl.int64) * s_g2m + i_e.to(tl.int64) * s_g2e
    b_sum = tl.zeros((N * CLASSES, M * CLASSES2), dtype=ACC)
    for t in range(0, n_t, POSITIONS):
        o_a = row_offsets(i_n, 0, t, n_n, 1, n_t, s_an, 0, s_at, N, 1, POSITIONS, WIDE)
        o_g = row_offsets(i_n, i_c, t, n_n, n_c, n_t, s_gn, s_gc, s_gt, N, CLASSES, POSITIONS, WIDE)
        b_t = tl.where(t + tl.arange(0, N * POSITIONS) % POSITIONS < n_t, 1.0, 0.0).to(ACC)
        for s in range(0, n_s, POSITIONS2):
            o_a2 = row_offsets(i_m, 0, s, n_m, 1, n_s, s_a2m, 0, s_a2s, M, 1, POSITIONS2, WIDE)
            o_g2 = row_offsets(i_m, i_e, s, n_m, n_e, n_s, s_g2m, s_g2e, s_g2s, M, CLASSES2, POSITIONS2, WIDE)
            b_s = tl.where(s + tl.arange(0, M * POSITIONS2) % POSITIONS2 < n_s, 1.0, 0.0).to(ACC)
            p_at = p_a + tl.cast(t, tl.int64) * s_at
            p_as = p_a2 + tl.cast(s, tl.int64) * s_a2s
            b_w = tl.zeros((N * POSITIONS, M * POSITIONS2), dtype=ACC)
            b_w = row_products(b_w, p_at, p_as, o_a, o_a2, s_ad, s_a2d, 0, 0, n_d, 1, False, DEPTH, EVEN, MODE, WIDE)
            if POSITIONS * POSITIONS2 > 1:
                b_w = b_w * b_t[:, None] * b_s[None, :]  # positions past the end weigh nothing
            p_gt = p_g + tl.cast(t, tl.int64) * s_gt
            p_gs = p_g2 + tl.cast(s, tl.int64) * s_g2s
            b_v = tl.zeros((ROWS, COLUMNS), dtype=ACC)
            b_v = row_products(
                b_v, p_gt, p_gs, o_g, o_g2, s_gp, s_g2p, s_gc, s_g2e, n_p, n_c, SUMMED, DEPTH, EVEN, MODE, WIDE
            )
            b_sum += weighted_sum(b_w, b_v, N, CLASSES, POSITIONS, M, CLASSES2, POSITIONS2)
    add_block(p_out, b_sum, i_n, i_c, i_m, i_e, n_n, n_c, n_m, n_e, s_on, s_oc, s_om, s_oe, N, CLASSES, M, CLASSES2)


@dataclass(frozen=True)
class Problem:
    """One call: out += the Gram block of two sides (a, g), in a precision mode."""

    out: torch.Tensor
    left: Side
    right: Side
    output: str
    symmetric: bool
    mode: str

    @cached_property
    def sizes(self) -> Sizes:
        """Return the sizes of both sides."""
        (a, g), (_, g2) = self.left, self.right
        (n, c, t, p), (m, c2, t2, _) = g.shape, g2.shape
        return Sizes(n, m, t, t2, c, c2, a.shape[2], p)

    def choose(self) -> Launch:
        """Return the launch configuration."""
        trial = replace(self, out=torch.zeros_like(self.out)).start
        operands = *self.left, *self.right
        return choose(LAUNCHES, self.mode, operands, self.sizes, self.output, trial)

    def start(self, chosen: Launch) -> None:
        """Launch the kernel."""
        s, parts = self.sizes, split(self.sizes, self.output, chosen["ROWS"], chosen["COLUMNS"])
        factored_gram_kernel[(programs(s, self.output, parts, chosen),)](
            self.out, *self.left, *self.right,
            s.samples, s.samples2, s.classes, s.classes2, s.positions, s.positions2, s.inputs, s.outputs,
            *out_strides(self.out), *strides(self.left), *strides(self.right),
            OUTPUT=self.output, SYMMETRIC=self.symmetric, **parts.arguments(),
            EVEN=s.inputs % chosen["DEPTH"] == s.outputs % chosen["DEPTH"] == 0,
            WIDE=self._is_wide(parts, chosen), MODE=self.mode, ACC=ACCUMULATORS[self.out.dtype], **chosen.arguments(),
        )  # fmt: skip

    def _is_wide(self, parts: Split, chosen: Launch) -> bool:
        depth, (n, m) = chosen["DEPTH"], parts.samples(chosen)
        return is_wide(
            (self.left[0], (n, parts.positions, depth)),
            (self.left[1], (n, parts.classes, parts.positions, depth)),
            (self.right[0], (m, parts.positions2, depth)),
            (self.right[1], (m, parts.classes2, parts.positions2, depth)),
        )


def factored_gram(
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    precision: str,
) -> torch.Tensor:
    """Return the factored Gram block, exactly symmetric without a2 and g2."""
    out = _operands.new_gram(output, g, g2)
    factored_gram_(out, a, g, a2, g2, output, precision)
    if a2 is None:
        symmetrize_(_operands.matrices(output, out))
    return out


def factored_gram_(
    out: torch.Tensor,
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    precision: str,
) -> None:
    """Add the factored Gram block to `out`; without a2 and g2 only the blocks that touch the upper triangle."""
    symmetric = a2 is None or g2 is None
    left, right = (a, g), (a, g) if a2 is None or g2 is None else (a2, g2)
    if output == "trace":
        left, right = joined(left, right)
    problem = Problem(out, left, right, output, symmetric, modes.mode(precision, a.dtype))
    if not (out.numel() and problem.sizes.positions and problem.sizes.positions2):
        return
    rounds = a.dtype not in FLOATS  # Jacobians in half precision would be rounded between their sums
    if rounds or method(problem.sizes, output) == "fused":
        problem.start(problem.choose())
    else:
        materialised.add(out, left, None if symmetric else right, output, _KERNELS, precision)


def joined(left: Side, right: Side) -> tuple[Side, Side]:
    """Return the operands of a trace with the classes joined to the outputs, where there is one position in both.

    Then trace[n,m] = (a[n]·a2[m]) Σ_{c,p} g[n,c,p] g2[m,c,p] has one long sum in place of C short ones.
    """
    if left[1].shape[2] == right[1].shape[2] == 1 and all(_joins(g) for _, g in (left, right)):
        return (left[0], _join(left[1])), (right[0], _join(right[1]))
    return left, right


def _joins(g: torch.Tensor) -> bool:
    return g.stride(1) == g.shape[3] * g.stride(3)


def _join(g: torch.Tensor) -> torch.Tensor:
    return g.as_strided((g.shape[0], 1, 1, g.shape[1] * g.shape[3]), (g.stride(0), 0, 0, g.stride(3)))


def strides(side: Side) -> tuple[int, ...]:
    """Return the strides of a [N, T, d] and g [N, C, T, p]."""
    return (*side[0].stride(), *side[1].stride())


_SPLITS = {
    "point": {"OUTPUT": "full", "CLASSES": 1, "POSITIONS": 1},
    "classes": {"OUTPUT": "full", "CLASSES": 2, "POSITIONS": 1},
    "positions": {"OUTPUT": "full", "CLASSES": 1, "POSITIONS": 16},
    "trace": {"OUTPUT": "trace", "CLASSES": 1, "POSITIONS": 16},
}
"""Ways to split a block that are compiled ahead of time."""


def aot_rows() -> list[AotRow]:
    """Return the launch configurations, each with several splits."""
    return [
        AotRow(
            "factored_gram",
            f"{mode} {dtype} {alignment} {name}",
            factored_gram_kernel,
            chosen,
            _aot_arguments(mode, dtype, parts, aligned=alignment == "aligned"),
            targets=targets_of(mode),
            wgmma=mode != "ieee",
        )
        for mode, dtype, alignment, chosen in distinct(LAUNCHES)
        for name, parts in _SPLITS.items()
        if alignment == "aligned" or name in ("point", "positions")
    ]


def _aot_arguments(mode: str, dtype: str, parts: dict[str, Any], *, aligned: bool) -> dict[str, Any]:
    names = [parameter.name for parameter in factored_gram_kernel.params]
    arguments = block_arguments(names, dtype, aligned=aligned, point=parts["POSITIONS"] == 1)
    both = {f"{name}2": parts[name] for name in ("CLASSES", "POSITIONS")}
    return {**arguments, **parts, **both, "SYMMETRIC": True, "EVEN": aligned, "MODE": mode, "WIDE": False}
