"""Pair moments on the GPU: one launch per dtype for all tensors, pairs and chunks, and one that adds the chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton.language as tl

from twophase_fast.ops._triton.aot import AotRow
from twophase_fast.ops._triton.kernel import Kernel
from twophase_fast.ops._triton.launch import Key, Launch, launch
from twophase_fast.ops._triton.modes import architecture
from twophase_fast.ops.pair_moments import config
from twophase_fast.ops.pair_moments.groups import Group, groups
from twophase_fast.ops.pair_moments.kernels import moments_kernel, residual_kernel, sum_kernel
from twophase_fast.ops.pair_moments.reference import FIELDS

_LARGEST = FIELDS.index("max_abs_d")
_NO_FIELD = -1
_TYPES = {torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def pair_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], runs: int) -> torch.Tensor:
    """Return `[R, S, L, 8]`, the same bits on every call."""
    per_run, others = len(xs) // runs, 1 if ys else runs
    out = xs[0].new_empty((runs, others, per_run, len(FIELDS)), dtype=torch.float64)
    for group in groups([[*xs[index::per_run], *ys[index : index + 1]] for index in range(per_run)]):
        pairs = runs * others
        partial = out.new_empty((group.chunks.count, pairs, len(FIELDS)))
        scalars = {"pairs": pairs, "others": others, "first_other": runs if ys else 0}
        _launch(moments_kernel, group, partial, scalars)
        _add_chunks(group, partial, out.view(pairs, per_run, len(FIELDS)), _LARGEST)
    return out


def residual_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], scale: float) -> torch.Tensor:
    """Return `[L, 2]`: ‖e‖² and <e, x> with e = y − scale·x by fused multiply-add."""
    out = xs[0].new_empty((1, len(xs), 2), dtype=torch.float64)
    scale_table = out.new_full((1,), scale)
    for group in groups([list(pair) for pair in zip(xs, ys, strict=True)]):
        partial = out.new_empty((group.chunks.count, 1, 2))
        _launch(residual_kernel, group, partial, {"scale_ptr": scale_table})
        _add_chunks(group, partial, out, _NO_FIELD)
    return out[0]


def _launch(kernel: Kernel, group: Group, partial: torch.Tensor, others: dict[str, Any]) -> None:
    """Write the partial moments of every chunk of a group."""
    if not group.chunks.count:
        return

    def run(chosen: Launch) -> None:
        kernel[(group.chunks.count,)](
            group.addresses, group.chunks.map, group.chunks.lengths, partial, group.tensors,
            chunk=group.chunks.length, DTYPE=_TYPES[group.dtype], ALIGNED=group.aligned, **others, **chosen.arguments(),
        )  # fmt: skip

    run(_choose(group, run))


def _choose(group: Group, trial: Callable[[Launch], None]) -> Launch:
    key = architecture(), str(group.dtype.itemsize)
    return config.MOMENTS.choose(key, (group.elements, group.tensors), group.addresses.device, trial)


def _add_chunks(group: Group, partial: torch.Tensor, out: torch.Tensor, largest: int) -> None:
    """Add the chunks of every tensor in their order; `out` is [pairs, L, fields]."""
    pairs, per_run, fields = out.shape
    sum_kernel[(group.tensors * pairs,)](
        partial, group.chunks.first, out, pairs, per_run, group.positions,
        FIELDS=fields, LARGEST=largest, BLOCK=16 if out.is_cpu else config.SUM_BLOCK, num_warps=4,
    )  # fmt: skip


def aot_rows() -> list[AotRow]:
    """Return both kernels in every launch configuration for every dtype, and the sums over chunks."""
    dtypes = {"2": ("bf16", "fp16"), "4": ("fp32",), "8": ("fp64",)}
    moments = [
        _row(kernel, key, chosen, dtype)
        for kernel in (moments_kernel, residual_kernel)
        for key, chosen in config.MOMENTS.all()
        for dtype in dtypes[key[1]]
    ]
    return [*moments, _sum_row(8, _LARGEST), _sum_row(2, _NO_FIELD)]


def _row(kernel: Kernel, key: Key, chosen: Launch, dtype: str) -> AotRow:
    arguments = (
        dict.fromkeys(("table", "chunk_map", "lengths"), "*i64:16")
        | dict.fromkeys(("tensors", "pairs", "others", "first_other"), "i32")
        | {"partial": "*fp64:16", "scale_ptr": "*fp64:16", "chunk": "i32:16"}
        | {"DTYPE": tl.str_to_ty(dtype, None), "ALIGNED": True}
    )
    op = "pair_moments" if kernel is moments_kernel else "residual_moments"
    return AotRow(op, dtype, kernel, chosen, arguments, targets=(key[0],))


def _sum_row(fields: int, largest: int) -> AotRow:
    arguments = (
        dict.fromkeys(("partial", "out"), "*fp64:16")
        | dict.fromkeys(("first_chunk", "out_tensor_index"), "*i64:16")
        | dict.fromkeys(("pairs", "out_tensors"), "i32")
        | {"FIELDS": fields, "LARGEST": largest}
    )
    return AotRow("pair_moments", f"sum of {fields} fields", sum_kernel, launch(BLOCK=config.SUM_BLOCK), arguments)
