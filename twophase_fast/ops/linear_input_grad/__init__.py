"""`linear_input_grad_`: cotangents pulled back through a linear layer, and an element-wise function before it."""

from __future__ import annotations

import torch

from twophase_fast._types import Backend
from twophase_fast.ops import _checks, _dispatch, _library, _operands
from twophase_fast.ops.linear_input_grad import cpu, library, reference


def linear_input_grad_(
    out: torch.Tensor,
    g: torch.Tensor,
    weight: torch.Tensor,
    *,
    add: bool = False,
    scale: torch.Tensor | None = None,
    backend: Backend | None = None,
) -> torch.Tensor:
    """Write the gradients of y = x·weightᵀ with respect to x to `out`, or add them, for K cotangents a sample.

    out[b,k,t,i] (+)= (Σ_o g[b,k,t,o]·weight[o,i])·scale[b,t,i]

    Sums are in the dtype of `g`, on CPU tensors bitwise the same for any number of threads. Contiguous tensors are
    read and written in place, `weight` in any strides; others are copied first.

    Args:
        out: Where the gradients go `[B, K, T, I]`; shares no memory with the operands.
        g: Cotangents behind the layer `[B, K, T, O]`, float32 or float64, dtype and device of `out`.
        weight: Weight of the layer `[O, I]`, likewise.
        add: Whether to add to what `out` holds, such as the cotangents of a parallel branch; else that is never read.
        scale: Derivative of an element-wise function that made x `[B, T, I]`, likewise: the gradients are then those
            with respect to what that function took. None for ones.
        backend: `"reference"`, `"cpu"`, `"library"`, or None for the first that fits; there is no Triton version: a
            GPU runs `"library"`, cuBLAS's product in IEEE float32, written in place.

    Returns:
        `out`.

    Raises:
        InputError: Wrong rank, shape, dtype or device, or `out` cannot be written in place.
        BackendError: The named backend cannot run on these inputs.
    """
    _operands.operand("g", g, "B K T O")
    _operands.operand("weight", weight, "O I")
    _checks.floating("g", g)
    _checks.alike("weight", weight, "g", g)
    _operands.same_size("outputs", ("g", g.shape[3]), ("weight", weight.shape[0]))
    samples, _, positions, _ = g.shape
    if scale is not None:
        _operands.check_like("scale", scale, (samples, positions, weight.shape[1]), "[B, T, I]", g)
    _operands.writable(out, (*g.shape[:3], weight.shape[1]), "[B, K, T, I]", ("g", g))
    operands = [_operands.plain(operand) for operand in (g, weight, scale)]
    torch.ops.twophase_fast.linear_input_grad_(out, *operands, bool(add), backend or "")
    return out


_library.define(
    "linear_input_grad_(Tensor(a!) out, Tensor g, Tensor weight, Tensor? scale, bool add, str backend) -> ()"
)
_dispatch.add(
    "linear_input_grad_",
    reference=reference.linear_input_grad_,
    cpu=cpu.linear_input_grad_,
    cpu_refuses=cpu.refuses,
    library=library.linear_input_grad_,
)
