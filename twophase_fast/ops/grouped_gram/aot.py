"""The kernel of grouped Gram blocks in all launch configurations, for ahead-of-time compilation."""

from __future__ import annotations

import triton.language as tl

from twophase_fast.ops._triton.aot import AotRow
from twophase_fast.ops._triton.launch import Key, Launch
from twophase_fast.ops.gram import config
from twophase_fast.ops.gram.aot import POINTERS, accumulator, result_pointer, uses_wgmma
from twophase_fast.ops.grouped_gram.kernels import grouped_gram_kernel


def aot_rows() -> list[AotRow]:
    """Return every launch configuration of `gram` for every input dtype, with sums whole and split."""
    return [
        _row(key, chosen, pointer, split)
        for key, chosen in config.GRAM.all()
        for pointer in POINTERS[key[2]]
        for split in (False, True)
    ]


def _row(key: Key, chosen: Launch, pointer: str, split: bool) -> AotRow:
    architecture, mode, _, size = key
    dtype = pointer[1:-3]
    arguments = (
        dict.fromkeys(("table", "schedule"), "*i64:16")
        | dict.fromkeys(("out", "partial"), result_pointer(pointer))
        | dict.fromkeys(("rows", "columns", "row_tiles", "col_tiles", "items", "parts", "pieces"), "i32")
        | {"out_row": "i32:16", "out_col": 1, "MODE": mode, "ACC": accumulator(pointer)}
        | {"DTYPE": tl.str_to_ty(dtype, None), "TRIANGULAR": True, "SPLIT": split, "WIDE": False}
        | {"VECTOR": {"fp32": 4, "fp64": 2}.get(dtype, 8)}
    )
    label = f"{mode} {dtype} {size}{' split' if split else ''}"
    wgmma = uses_wgmma(mode, pointer)
    return AotRow("grouped_gram_", label, grouped_gram_kernel, chosen, arguments, (architecture,), wgmma=wgmma)
