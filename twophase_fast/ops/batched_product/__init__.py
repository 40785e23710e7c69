"""`batched_product_`: many small products, an operand of which may be shared by all outputs of a sample."""

from __future__ import annotations

import torch

from twophase_fast._types import Backend, InputError
from twophase_fast.ops import _checks, _dispatch, _library, _operands
from twophase_fast.ops.batched_product import cpu, library, reference


def batched_product_(
    out: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, backend: Backend | None = None
) -> torch.Tensor:
    """Write the products of matrices, of which one side may be the same for all K outputs of a sample, to `out`.

    out[b,k,h] = left[b,k,h]·right[b,k,h]

    What pulls K cotangents per sample back through a batched product or attention of H heads. Sums are in the dtype of
    the operands, on CPU tensors bitwise the same for any number of threads. Operands and `out` have any strides; an
    operand with K = 1 is read once. On the CPU nothing is copied.

    Args:
        out: Where the products go `[B, K, H, n, q]`; shares no memory with the operands.
        left: `[B, K, H, n, p]` or `[B, 1, H, n, p]`, float32 or float64, dtype and device of `out`.
        right: `[B, K, H, p, q]` or `[B, 1, H, p, q]`, likewise.
        backend: `"reference"`, `"cpu"`, `"library"`, or None for the first that fits; there is no Triton version: a
            GPU runs `"library"`, cuBLAS's batched product in IEEE float32.

    Returns:
        `out`.

    Raises:
        InputError: Wrong rank, shape, dtype or device, or `out` cannot be written in place.
        BackendError: The named backend cannot run on these inputs.
    """
    _operands.operand("left", left, "B K H n p")
    _operands.operand("right", right, "B K H p q")
    _checks.floating("left", left)
    _checks.alike("right", right, "left", left)
    samples, _, heads, rows, terms = left.shape
    _operands.same_size("samples", ("left", samples), ("right", right.shape[0]))
    _operands.same_size("heads", ("left", heads), ("right", right.shape[2]))
    _operands.same_size("terms", ("left", terms), ("right", right.shape[3]))
    outputs = {operand.shape[1] for operand in (left, right)} - {1}
    if len(outputs) > 1:
        raise InputError(
            f"left has K={left.shape[1]} outputs but right has K={right.shape[1]}; they must agree unless one is 1"
        )
    shape = (samples, outputs.pop() if outputs else 1, heads, rows, right.shape[4])
    _operands.writable(out, shape, "[B, K, H, n, q]", ("left", left))
    torch.ops.twophase_fast.batched_product_(out, _operands.plain(left), _operands.plain(right), backend or "")
    return out


_library.define("batched_product_(Tensor(a!) out, Tensor left, Tensor right, str backend) -> ()")
_dispatch.add(
    "batched_product_",
    reference=reference.batched_product_,
    cpu=cpu.batched_product_,
    cpu_refuses=cpu.refuses,
    library=library.batched_product_,
)
