"""Factored Gram block: the Gram block of a linear map's per-sample gradients, without the gradients.

A linear map z_t = W a_t has the per-sample Jacobian rows J_nc = Σ_t g_nct a_ntᵀ, where a is its input and g the cotangent
at z. Their inner products factor:

    full[n,m,c,c'] = <J_nc, J_mc'> = Σ_{t,s} (a_nt·a2_ms) (g_nct·g2_mc's)
"""

from __future__ import annotations

import torch

from twophase_fast._types import InputError
from twophase_fast.ops import _operands as operands
from twophase_fast.ops.factored_gram import reference
from twophase_fast.ops._operands import GramOutput


def factored_gram(
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None = None,
    g2: torch.Tensor | None = None,
    *,
    output: GramOutput = "full",
    backend: str | None = None,
) -> torch.Tensor:
    """Return the Gram block of the per-sample gradients Σ_t g[n,c,t] a[n,t]ᵀ, without forming them.

    full[n,m,c,c'] = Σ_{t,s} (a[n,t]·a2[m,s]) (g[n,c,t]·g2[m,c',s]); trace[n,m] = Σ_c full[n,m,c,c];
    diagonal[n,m,c] = full[n,m,c,c]. Without a2 and g2 the second side is the first, half of the work is saved and the
    result is exactly symmetric. Operands may have any strides and are only read.

    Args:
        a: Inputs of the layer [N, T, d], float32 or float64.
        g: Cotangents at its outputs [N, C, T, p], dtype and device of `a`.
        a2: Inputs of the second side [M, S, d], or None.
        g2: Cotangents of the second side [M, C', S, p], or None; C' = C unless output="full".
        output: "full" [N, M, C, C'], "trace" [N, M] or "diagonal" [N, M, C].
        backend: "reference", "cpu" or "triton"; None takes the first that can run the op.

    Returns:
        A tensor in the dtype of the operands, accumulated in that dtype; "full" is laid out in memory as the kernel
        matrix [N·C, M·C'] seen as [N, M, C, C'].

    Raises:
        InputError: An operand has the wrong shape, dtype or device, only one of a2 and g2 is given, or `output` is unknown.
        BackendError: No backend can run the op; the message lists every reason.
    """  # noqa: DOC502
    shape = _check("factored_gram", a, g, a2, g2, output)
    out = operands.new_gram(a, output, shape)
    _run(out, a, g, a2, g2, output, backend)
    if a2 is None:
        operands.mirror_(out, output)
    return out


def factored_gram_(
    out: torch.Tensor,
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None = None,
    g2: torch.Tensor | None = None,
    *,
    output: GramOutput = "full",
    backend: str | None = None,
) -> torch.Tensor:
    """Add the factored Gram block of `factored_gram` to `out`, in place.

    `out` may have any strides, such as those of a kernel matrix seen by sample:
    `kernel.view(N, C, M, C).permute(0, 2, 1, 3)`. Without a2 and g2 only the entries (n,c) <= (m,c') (in the order of
    the kernel matrix) are defined afterwards; `symmetrize_` on the matrix fills the others once all layers are added.

    Args:
        out: Result so far: full [N, M, C, C'], trace [N, M] or diagonal [N, M, C].
        a: Inputs of the layer [N, T, d], float32 or float64.
        g: Cotangents at its outputs [N, C, T, p].
        a2: Inputs of the second side [M, S, d], or None.
        g2: Cotangents of the second side [M, C', S, p], or None.
        output: "full", "trace" or "diagonal".
        backend: "reference", "cpu" or "triton"; None takes the first that can run the op.

    Returns:
        `out`.

    Raises:
        InputError: An operand has the wrong shape, dtype or device, or `out` does not fit.
        BackendError: No backend can run the op; the message lists every reason.
    """  # noqa: DOC502
    shape = _check("factored_gram_", a, g, a2, g2, output)
    operands.check_out("factored_gram_", out, shape, ("a", a))
    _run(out, a, g, a2, g2, output, backend)
    return out


def _run(out, a, g, a2, g2, output, backend) -> None:  # noqa: ANN001
    with torch.no_grad():
        reference.factored_gram_(out, a, g, a2, g2, output)


def _check(
    op: str,
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
) -> tuple[int, ...]:
    """Check all operands and return the shape of the result."""
    operands.check_output(op, output)
    if (a2 is None) != (g2 is None):
        missing = "a2" if a2 is None else "g2"
        raise InputError(
            f"{op}: {missing} is missing; give both a2 and g2, or neither for the symmetric case"
        )
    _check_side(op, ("a", a), ("g", g), "N T d", "N C T p")
    if a2 is None or g2 is None:
        operands.check_same(op, ("a", a), {"g": g})
        a2, g2 = a, g
    else:
        _check_side(op, ("a2", a2), ("g2", g2), "M S d", "M C' S p")
        operands.check_same(op, ("a", a), {"g": g, "a2": a2, "g2": g2})
    operands.check_sizes(op, "inputs (last axis)", ("a", a.shape[2]), ("a2", a2.shape[2]))
    operands.check_sizes(op, "outputs (last axis)", ("g", g.shape[3]), ("g2", g2.shape[3]))
    operands.check_classes(op, output, g.shape[1], g2.shape[1])
    return operands.gram_shape(output, a.shape[0], a2.shape[0], g.shape[1], g2.shape[1])


def _check_side(
    op: str, a: tuple[str, torch.Tensor], g: tuple[str, torch.Tensor], a_axes: str, g_axes: str
) -> None:
    """Check one side's input and cotangent against each other."""
    operands.check_tensor(op, *a, a_axes)
    operands.check_tensor(op, *g, g_axes)
    operands.check_sizes(op, "samples (first axis)", (a[0], a[1].shape[0]), (g[0], g[1].shape[0]))
    operands.check_sizes(op, "positions", (a[0], a[1].shape[1]), (g[0], g[1].shape[2]))
