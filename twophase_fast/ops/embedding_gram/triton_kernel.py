"""Embedding Gram blocks in Triton: the products g gᵀ in registers, masked where tokens differ.

Blocks of positions without an equal pair of tokens, which are most for a large table, are skipped before their
products.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import torch
import triton.language as tl

from twophase_fast.ops import _operands
from twophase_fast.ops._triton import modes
from twophase_fast.ops._triton.aot import AotRow
from twophase_fast.ops._triton.kernel import kernel
from twophase_fast.ops._triton.launch import Launch
from twophase_fast.ops.embedding_gram.triton_config import LAUNCHES
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
from twophase_fast.ops.factored_gram.triton_config import Split, choose, programs, split
from twophase_fast.ops.gram.triton_kernel import symmetrize_

Side: TypeAlias = tuple[torch.Tensor, torch.Tensor]


@kernel
def embedding_gram_kernel(
    p_out, p_k, p_g, p_k2, p_g2, padding_idx,
    n_n, n_m, n_c, n_e, n_t, n_s, n_p,
    s_on, s_om, s_oc, s_oe,
    s_kn, s_kt, s_gn, s_gc, s_gt, s_gp,
    s_k2m, s_k2s, s_g2m, s_g2e, s_g2s, s_g2p,
    OUTPUT: tl.constexpr, SYMMETRIC: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    CLASSES: tl.constexpr, CLASSES2: tl.constexpr, POSITIONS: tl.constexpr, POSITIONS2: tl.constexpr,
    EVEN: tl.constexpr, MODE: tl.constexpr, ACC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out[n,m,c,c'] += Σ_{t,s} [k[n,t] = k2[m,s] ≠ padding_idx] (g[n,c,t]·g2[m,c',s]), or its trace or diagonal."""
    N: tl.constexpr = ROWS // (CLASSES * POSITIONS)
    M: tl.constexpr = COLUMNS // (CLASSES2 * POSITIONS2)
    SUMMED: tl.constexpr = OUTPUT == "trace"
    i_n, i_m, i_c, i_e = block_indices(n_n, n_m, n_e, N, M, CLASSES, CLASSES2, OUTPUT)
    if SYMMETRIC:  # noqa: SIM102
        if i_m + M <= i_n:  # below the diagonal
            return
    p_k += i_n.to(tl.int64) * s_kn
    p_k2 += i_m.to(tl.int64) * s_k2m
    p_g += i_n.to(tl.int64) * s_gn + i_c.to(tl.int64) * s_gc
    p_g2 += i_m.to(tl.int64) * s_g2m + i_e.to(tl.int64) * s_g2e
    b_sum = tl.zeros((N * CLASSES, M * CLASSES2), dtype=ACC)
    for t in range(0, n_t, POSITIONS):
        o_k = row_offsets(i_n, 0, t, n_n, 1, n_t, s_kn, 0, s_kt, N, 1, POSITIONS, WIDE)
        o_g = row_offsets(i_n, i_c, t, n_n, n_c, n_t, s_gn, s_gc, s_gt, N, CLASSES, POSITIONS, WIDE)
        b_k = tl.load(p_k + tl.cast(t, tl.int64) * s_kt + o_k).to(tl.int64)
        b_k = tl.where(t + tl.arange(0, N * POSITIONS) % POSITIONS < n_t, b_k, -(2**63))
        if PADDED:
            b_k = tl.where(b_k == padding_idx, -(2**63), b_k)
        for s in range(0, n_s, POSITIONS2):
            o_k2 = row_offsets(i_m, 0, s, n_m, 1, n_s, s_k2m, 0, s_k2s, M, 1, POSITIONS2, WIDE)
            b_k2 = tl.load(p_k2 + tl.cast(s, tl.int64) * s_k2s + o_k2).to(tl.int64)
            b_k2 = tl.where(s + tl.arange(0, M * POSITIONS2) % POSITIONS2 < n_s, b_k2, 1 - 2**63)
            b_w = tl.where(b_k[:, None] == b_k2[None, :], 1.0, 0.0).to(ACC)
            if tl.max(b_w) > 0:
                o_g2 = row_offsets(i_m, i_e, s, n_m, n_e, n_s, s_g2m, s_g2e, s_g2s, M, CLASSES2, POSITIONS2, WIDE)
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
    """One call: out += the Gram block of two sides (tokens, g), in a precision mode."""

    out: torch.Tensor
    left: Side
    right: Side
    output: str
    padding_idx: int | None
    symmetric: bool
    mode: str

    @cached_property
    def sizes(self) -> Sizes:
        """Return the sizes of both sides; there are no inputs."""
        (n, c, t, p), (m, c2, t2, _) = self.left[1].shape, self.right[1].shape
        return Sizes(n, m, t, t2, c, c2, 0, p)

    def choose(self) -> Launch:
        """Return the launch configuration."""
        trial = replace(self, out=torch.zeros_like(self.out)).start
        operands = self.left[1], self.right[1]
        return choose(LAUNCHES, self.mode, operands, self.sizes, self.output, trial)

    def start(self, chosen: Launch) -> None:
        """Launch the kernel."""
        s, parts = self.sizes, split(self.sizes, self.output, chosen["ROWS"], chosen["COLUMNS"])
        strides = [stride for side in (self.left, self.right) for tensor in side for stride in tensor.stride()]
        embedding_gram_kernel[(programs(s, self.output, parts, chosen),)](
            self.out, *self.left, *self.right, self.padding_idx or 0,
            s.samples, s.samples2, s.classes, s.classes2, s.positions, s.positions2, s.outputs,
            *out_strides(self.out), *strides,
            OUTPUT=self.output, SYMMETRIC=self.symmetric, PADDED=self.padding_idx is not None, **parts.arguments(),
            EVEN=s.outputs % chosen["DEPTH"] == 0, MODE=self.mode, ACC=ACCUMULATORS[self.out.dtype],
            WIDE=self._is_wide(parts, chosen), **chosen.arguments(),
        )  # fmt: skip

    def _is_wide(self, parts: Split, chosen: Launch) -> bool:
        depth, (n, m) = chosen["DEPTH"], parts.samples(chosen)
        return is_wide(
            (self.left[0], (n, parts.positions)),
            (self.left[1], (n, parts.classes, parts.positions, depth)),
            (self.right[0], (m, parts.positions2)),
            (self.right[1], (m, parts.classes2, parts.positions2, depth)),
        )


def embedding_gram(
    tokens: torch.Tensor,
    g: torch.Tensor,
    tokens2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    padding_idx: int | None,
    precision: str,
) -> torch.Tensor:
    """Return the embedding Gram block, exactly symmetric without tokens2 and g2."""
    out = _operands.new_gram(output, g, g2)
    embedding_gram_(out, tokens, g, tokens2, g2, output, padding_idx, precision)
    if tokens2 is None:
        symmetrize_(_operands.matrices(output, out))
    return out


def embedding_gram_(
    out: torch.Tensor,
    tokens: torch.Tensor,
    g: torch.Tensor,
    tokens2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    padding_idx: int | None,
    precision: str,
) -> None:
    """Add the embedding Gram block to `out`; without tokens2 and g2 only the blocks that touch the upper triangle."""
    symmetric = tokens2 is None or g2 is None
    right = (tokens, g) if tokens2 is None or g2 is None else (tokens2, g2)
    mode = modes.mode(precision, g.dtype)
    problem = Problem(out, (tokens, g), right, output, padding_idx, symmetric, mode)
    if out.numel() and problem.sizes.positions and problem.sizes.positions2:
        problem.start(problem.choose())


def aot_rows() -> list[AotRow]:
    """Return the launch configurations, for one position and for several."""
    return [
        AotRow(
            "embedding_gram",
            f"{mode} {dtype} {alignment} {output} {positions}",
            embedding_gram_kernel,
            chosen,
            _aot_arguments(mode, dtype, output, positions, aligned=alignment == "aligned"),
            targets=targets_of(mode),
            wgmma=mode != "ieee",
        )
        for mode, dtype, alignment, chosen in distinct(LAUNCHES)
        for output, positions in (("full", 1), ("full", 16), ("trace", 16))
        if alignment == "aligned" or positions > 1
    ]


def _aot_arguments(mode: str, dtype: str, output: str, positions: int, *, aligned: bool) -> dict[str, Any]:
    names = [parameter.name for parameter in embedding_gram_kernel.params]
    arguments = block_arguments(names, dtype, aligned=aligned, point=positions == 1)
    tokens = {"p_k": "*i64:16", "p_k2": "*i64:16", "padding_idx": "i32", "s_kt": 1, "s_k2s": 1}
    split = {"CLASSES": 1, "CLASSES2": 1, "POSITIONS": positions, "POSITIONS2": positions}
    flags = {"SYMMETRIC": True, "PADDED": True, "EVEN": aligned, "MODE": mode, "OUTPUT": output, "WIDE": False}
    return {**arguments, **tokens, **split, **flags}
