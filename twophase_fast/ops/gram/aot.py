"""The Gram kernels in all launch configurations, for ahead-of-time compilation."""

from __future__ import annotations

import triton.language as tl

from twophase_fast.ops._triton.aot import AotRow
from twophase_fast.ops._triton.launch import Key, Launch, launch
from twophase_fast.ops.gram import config
from twophase_fast.ops.gram.kernels import gram_kernel, mirror_kernel, reduce_kernel

POINTERS = {"float32": ("*fp32:16",), "float64": ("*fp64:16",), "half": ("*bf16:16", "*fp16:16")}
"""Types of the operands' pointers, by dtype in the launch table."""

_COUNTS = ("rows", "columns", "row_tiles", "col_tiles", "tiles", "items", "parts", "chunks")
_STRIDES = ("x_batch", "x_row", "y_batch", "y_row", "out_batch", "out_row")


def aot_rows() -> list[AotRow]:
    """Return every launch configuration for every input dtype, with sums whole and split, and the kernels after it."""
    products = [
        _product_row(key, chosen, pointer, split)
        for key, chosen in config.GRAM.all()
        for pointer in POINTERS[key[2]]
        for split in (False, True)
    ]
    return [*products, *_reductions(), *_mirrors()]


def _product_row(key: Key, chosen: Launch, pointer: str, split: bool) -> AotRow:
    """The symmetric product of rows aligned to 16 elements."""
    architecture, mode, _, size = key
    arguments = (
        dict.fromkeys(("x", "y"), pointer)
        | dict.fromkeys(("out", "partial"), result_pointer(pointer))
        | dict.fromkeys(_COUNTS, "i32")
        | dict.fromkeys((*_STRIDES, "terms", "chunk"), "i32:16")
        | dict.fromkeys(("x_col", "y_col", "out_col"), 1)
        | {
            "MODE": mode,
            "ACC": accumulator(pointer),
            "TRIANGULAR": True,
            "SPLIT": split,
            "ACCUMULATE": True,
            "WIDE": False,
        }
    )
    label = f"{mode} {pointer[1:-3]} {size}{' split' if split else ''}"
    return AotRow("gram", label, gram_kernel, chosen, arguments, (architecture,), wgmma=uses_wgmma(mode, pointer))


def uses_wgmma(mode: str, pointer: str) -> bool:
    """Return whether products of these operands go through `wgmma` on sm_90."""
    return mode != "ieee" or pointer in POINTERS["half"]


def _reductions() -> list[AotRow]:
    """The sums over parts for every tile size."""
    sizes = sorted({(chosen["BLOCK"], key[2] == "float64") for key, chosen in config.GRAM.all()})
    return [_reduction(block, "*fp64:16" if double else "*fp32:16") for block, double in sizes]


def _reduction(block: int, pointer: str) -> AotRow:
    arguments = (
        dict.fromkeys(("partial", "out"), pointer)
        | dict.fromkeys(("rows", "columns", "row_tiles", "col_tiles", "tiles", "parts"), "i32")
        | {"out_batch": "i32:16", "out_row": "i32:16", "out_col": 1}
        | {"ACC": accumulator(pointer), "TRIANGULAR": True, "ACCUMULATE": True, "WIDE": False}
    )
    return AotRow("gram", f"sum of parts {pointer[1:-3]}", reduce_kernel, launch(BLOCK=block, ROWS=16), arguments)


def _mirrors() -> list[AotRow]:
    return [_mirror(pointer) for pointer in ("*fp32:16", "*fp64:16")]


def _mirror(pointer: str) -> AotRow:
    arguments = dict.fromkeys(("rows", "row_tiles", "tiles"), "i32") | {
        "out": pointer,
        "out_batch": "i32:16",
        "out_row": "i32:16",
        "out_col": 1,
    }
    return AotRow("symmetrize_", pointer[1:-3], mirror_kernel, launch(BLOCK=config.MIRROR_BLOCK), arguments)


def result_pointer(pointer: str) -> str:
    """Return the type of the result's pointer for operands behind `pointer`."""
    return "*fp64:16" if pointer == "*fp64:16" else "*fp32:16"


def accumulator(pointer: str) -> tl.dtype:
    """Return the dtype of sums for operands behind `pointer`."""
    return tl.float64 if pointer == "*fp64:16" else tl.float32
