"""Embedding Gram block: the Gram block of an embedding table's per-sample gradients, by matching equal tokens."""

from __future__ import annotations

import torch

from twophase_fast._types import InputError
from twophase_fast.ops import _operands as operands
from twophase_fast.ops._operands import GramOutput
from twophase_fast.ops.embedding_gram import reference


def embedding_gram(
    tokens: torch.Tensor,
    g: torch.Tensor,
    tokens2: torch.Tensor | None = None,
    g2: torch.Tensor | None = None,
    *,
    output: GramOutput = "full",
    padding_idx: int | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Return the Gram block of the per-sample gradients of an embedding table, without forming them.

    full[n,m,c,c'] = Σ_{t,s} [tokens[n,t] = tokens2[m,s] ≠ padding_idx] (g[n,c,t]·g2[m,c',s]);
    trace[n,m] = Σ_c full[n,m,c,c]; diagonal[n,m,c] = full[n,m,c,c]. Without tokens2 and g2 the second side is the first and
    the result is exactly symmetric. Operands may have any strides and are only read.

    Args:
        tokens: Row of the table taken at each position [N, T], int32 or int64.
        g: Cotangents at the embedded positions [N, C, T, p], float32 or float64.
        tokens2: Rows taken by the second side [M, S], dtype of `tokens`, or None.
        g2: Cotangents of the second side [M, C', S, p], or None; C' = C unless output="full".
        output: "full" [N, M, C, C'], "trace" [N, M] or "diagonal" [N, M, C].
        padding_idx: Row that gets no gradient, as in `torch.nn.Embedding` (an index from the start of the table), or None.
        backend: "reference", "cpu" or "triton"; None takes the first that can run the op.

    Returns:
        A tensor in the dtype of the cotangents; "full" is laid out in memory as the kernel matrix [N·C, M·C'] seen as
        [N, M, C, C'].

    Raises:
        InputError: An operand has the wrong shape, dtype or device, only one of tokens2 and g2 is given, or `output` or
            `padding_idx` is not allowed.
        BackendError: No backend can run the op; the message lists every reason.
    """  # noqa: DOC502
    shape = _check("embedding_gram", tokens, g, tokens2, g2, output, padding_idx)
    out = operands.new_gram(g, output, shape)
    _run(out, tokens, g, tokens2, g2, output, padding_idx, backend)
    if tokens2 is None:
        operands.mirror_(out, output)
    return out


def embedding_gram_(
    out: torch.Tensor,
    tokens: torch.Tensor,
    g: torch.Tensor,
    tokens2: torch.Tensor | None = None,
    g2: torch.Tensor | None = None,
    *,
    output: GramOutput = "full",
    padding_idx: int | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Add the embedding Gram block of `embedding_gram` to `out`, in place.

    `out` may have any strides. Without tokens2 and g2 only the entries (n,c) <= (m,c') (in the order of the kernel matrix
    [N·C, N·C]) are defined afterwards; `symmetrize_` on that matrix fills the others once all layers are added.

    Args:
        out: Result so far: full [N, M, C, C'], trace [N, M] or diagonal [N, M, C], dtype of `g`.
        tokens: Row of the table taken at each position [N, T], int32 or int64.
        g: Cotangents at the embedded positions [N, C, T, p], float32 or float64.
        tokens2: Rows taken by the second side [M, S], or None.
        g2: Cotangents of the second side [M, C', S, p], or None.
        output: "full", "trace" or "diagonal".
        padding_idx: Row that gets no gradient, or None.
        backend: "reference", "cpu" or "triton"; None takes the first that can run the op.

    Returns:
        `out`.

    Raises:
        InputError: An operand has the wrong shape, dtype or device, or `out` does not fit.
        BackendError: No backend can run the op; the message lists every reason.
    """  # noqa: DOC502
    shape = _check("embedding_gram_", tokens, g, tokens2, g2, output, padding_idx)
    operands.check_out("embedding_gram_", out, shape, ("g", g))
    _run(out, tokens, g, tokens2, g2, output, padding_idx, backend)
    return out


def _run(out, tokens, g, tokens2, g2, output, padding_idx, backend) -> None:  # noqa: ANN001
    with torch.no_grad():
        reference.embedding_gram_(out, tokens, g, tokens2, g2, output, padding_idx)


def _check(
    op: str,
    tokens: torch.Tensor,
    g: torch.Tensor,
    tokens2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    padding_idx: int | None,
) -> tuple[int, ...]:
    """Check all operands and return the shape of the result."""
    operands.check_output(op, output)
    if padding_idx is not None and (not isinstance(padding_idx, int) or padding_idx < 0):
        raise InputError(
            f"{op}: padding_idx must be an integer >= 0 or None, got {padding_idx!r}; add the table's length"
        )
    if (tokens2 is None) != (g2 is None):
        missing = "tokens2" if tokens2 is None else "g2"
        raise InputError(
            f"{op}: {missing} is missing; give both tokens2 and g2, or neither for the symmetric case"
        )
    _check_side(op, ("tokens", tokens), ("g", g), "N T", "N C T p")
    if tokens2 is None or g2 is None:
        tokens2, g2 = tokens, g
    _check_side(op, ("tokens2", tokens2), ("g2", g2), "M S", "M C' S p")
    operands.check_same(op, ("g", g), {"g2": g2})
    operands.check_sizes(op, "outputs (last axis)", ("g", g.shape[3]), ("g2", g2.shape[3]))
    operands.check_classes(op, output, g.shape[1], g2.shape[1])
    return operands.gram_shape(output, g.shape[0], g2.shape[0], g.shape[1], g2.shape[1])


def _check_side(
    op: str, tokens: tuple[str, torch.Tensor], g: tuple[str, torch.Tensor], token_axes: str, g_axes: str
) -> None:
    """Check one side's tokens and cotangent against each other."""
    operands.check_tensor(op, *tokens, token_axes)
    operands.check_tensor(op, *g, g_axes)
    if tokens[1].dtype not in {torch.int32, torch.int64} or tokens[1].device != g[1].device:
        raise InputError(
            f"{op}: {tokens[0]} must be int32 or int64 on the device of {g[0]}, got {operands.describe(tokens[1])}"
        )
    operands.check_sizes(op, "samples (first axis)", (tokens[0], tokens[1].shape[0]), (g[0], g[1].shape[0]))
    operands.check_sizes(op, "positions", (tokens[0], tokens[1].shape[1]), (g[0], g[1].shape[2]))
