"""`embedding_gram`, `embedding_gram_`: the Gram block of an embedding table's gradients, by matching equal tokens."""

from __future__ import annotations

from functools import partial

import torch

from twophase_fast._types import Backend, InputError, Precision
from twophase_fast.ops import _checks, _dispatch, _library, _operands
from twophase_fast.ops._operands import GramOutput
from twophase_fast.ops._triton.backend import lazy, refuses
from twophase_fast.ops.embedding_gram import cpu, reference


def embedding_gram(
    tokens: torch.Tensor,
    g: torch.Tensor,
    tokens2: torch.Tensor | None = None,
    g2: torch.Tensor | None = None,
    *,
    output: GramOutput = "full",
    padding_idx: int | None = None,
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Return the Gram block of the per-sample gradients of an embedding table, without forming them.

    full[n,m,c,c'] = Σ_{t,s} [tokens[n,t] = tokens2[m,s] ≠ padding_idx] (g[n,c,t]·g2[m,c',s]);
    trace[n,m] = Σ_c full[n,m,c,c]; diagonal[n,m,c] = full[n,m,c,c]. Without tokens2 and g2 the second side is the
    first and the result is exactly symmetric. Operands may have any strides and are only read.

    Args:
        tokens: Row of the table taken at each position `[N, T]`, int32 or int64.
        g: Cotangents at the embedded positions `[N, C, T, p]`, float32, float64, bfloat16 or
            float16.
        tokens2: Rows taken by the second side `[M, S]`, dtype of `tokens`, or None.
        g2: Cotangents of the second side `[M, C', S, p]`, or None; C' = C unless output="full".
        output: `"full"`, `"trace"` or `"diagonal"`.
        padding_idx: Row that gets no gradient, as in `torch.nn.Embedding`, counted from the start; or None.
        precision: `"highest"` IEEE arithmetic of the dtype; `"high"` and `"medium"` allow split or reduced products
            where the hardware has them.
        backend: `"reference"`, `"cpu"`, `"triton"`, or None for the first that fits.

    Returns:
        full `[N, M, C, C']`, trace `[N, M]` or diagonal `[N, M, C]`, device of `g`, without gradient; summed
        and returned in float64 for float64 cotangents, else in float32. In memory full is the kernel matrix
        `[N·C, M·C']` and diagonal `[C, N, M]`.

    Raises:
        InputError: Wrong rank, shape, dtype, device, output, padding_idx or precision, or only one of tokens2 and g2.
        BackendError: The named backend cannot run on these inputs.
    """
    _checks.precision(precision)
    _check(tokens, g, tokens2, g2, output, padding_idx)
    operands = (tokens, _operands.plain(g), tokens2, _operands.plain(g2))
    return torch.ops.twophase_fast.embedding_gram(*operands, output, padding_idx, precision, backend or "")


def embedding_gram_(
    out: torch.Tensor,
    tokens: torch.Tensor,
    g: torch.Tensor,
    tokens2: torch.Tensor | None = None,
    g2: torch.Tensor | None = None,
    *,
    output: GramOutput = "full",
    padding_idx: int | None = None,
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Accumulate in place: out += the Gram block of `embedding_gram`.

    `out` may have any strides. Without tokens2 and g2 only the entries (n,c) ≤ (m,c'), in the order of the kernel
    matrix `[N·C, N·C]`, are defined afterwards; the others hold garbage until `symmetrize_` is called on that matrix,
    once, after the last accumulation.

    Args:
        out: full `[N, M, C, C']`, trace `[N, M]` or diagonal `[N, M, C]`, float64 for float64 cotangents, else
            float32; shares no memory with the operands.
        tokens: Row of the table taken at each position `[N, T]`, int32 or int64.
        g: Cotangents at the embedded positions `[N, C, T, p]`, float32, float64, bfloat16 or
            float16.
        tokens2: Rows taken by the second side `[M, S]`, or None.
        g2: Cotangents of the second side `[M, C', S, p]`, or None.
        output: `"full"`, `"trace"` or `"diagonal"`.
        padding_idx: Row that gets no gradient, or None.
        precision: As in `embedding_gram`.
        backend: As in `embedding_gram`.

    Returns:
        `out`.

    Raises:
        InputError: Wrong rank, shape, dtype, device, output, padding_idx or precision, or `out` cannot be written in
            place.
        BackendError: The named backend cannot run on these inputs.
    """
    _checks.precision(precision)
    _check(tokens, g, tokens2, g2, output, padding_idx)
    _operands.writable(out, _operands.gram_shape(output, g, g2), _operands.AXES[output], _operands.sums_of("g", g))
    operands = (tokens, _operands.plain(g), tokens2, _operands.plain(g2))
    torch.ops.twophase_fast.embedding_gram_(out, *operands, output, padding_idx, precision, backend or "")
    return out


def _check(
    tokens: torch.Tensor,
    g: torch.Tensor,
    tokens2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    padding_idx: int | None,
) -> None:
    _operands.output_name(output)
    if padding_idx is not None and (not isinstance(padding_idx, int) or padding_idx < 0):
        raise InputError(f"padding_idx={padding_idx!r} must be an integer ≥ 0 or None; add the table's length to it")
    _operands.both_or_neither("tokens2", tokens2, "g2", g2)
    _check_side(("tokens", tokens, "N T"), ("g", g, "N C T p"))
    if tokens2 is None or g2 is None:
        return
    _check_side(("tokens2", tokens2, "M S"), ("g2", g2, "M C' S p"))
    _checks.alike("tokens2", tokens2, "tokens", tokens)
    _checks.alike("g2", g2, "g", g)
    _operands.same_size("outputs (last axis)", ("g", g.shape[3]), ("g2", g2.shape[3]))
    _operands.paired_classes(output, g.shape[1], g2.shape[1])


def _check_side(tokens: tuple[str, torch.Tensor, str], g: tuple[str, torch.Tensor, str]) -> None:
    _operands.operand(*tokens)
    _operands.operand(*g)
    _checks.floating(tokens[0], tokens[1], _checks.TOKENS)
    _checks.floating(g[0], g[1], _checks.ALL_FLOATS)
    if tokens[1].device != g[1].device:
        raise InputError(
            f"{tokens[0]} is on {tokens[1].device} but {g[0]} is on {g[1].device}; move both to one device"
        )
    _operands.same_size("samples (first axis)", (tokens[0], tokens[1].shape[0]), (g[0], g[1].shape[0]))
    _operands.same_size("positions", (tokens[0], tokens[1].shape[1]), (g[0], g[1].shape[2]))


_OPERANDS = (
    "Tensor tokens, Tensor g, Tensor? tokens2, Tensor? g2, str output, int? padding_idx, str precision, str backend"
)
_library.define(f"embedding_gram({_OPERANDS}) -> Tensor", fake=_operands.fake_gram)
_library.define(f"embedding_gram_(Tensor(a!) out, {_OPERANDS}) -> ()")
_dispatch.add(
    "embedding_gram",
    reference=reference.embedding_gram,
    cpu=cpu.embedding_gram,
    cpu_refuses=cpu.refuses,
    triton=lazy("embedding_gram", "embedding_gram"),
    triton_refuses=partial(refuses, dtypes=(*_checks.ALL_FLOATS, *_checks.TOKENS)),
)
_dispatch.add(
    "embedding_gram_",
    reference=reference.embedding_gram_,
    cpu=cpu.embedding_gram_,
    cpu_refuses=cpu.refuses,
    triton=lazy("embedding_gram", "embedding_gram_"),
    triton_refuses=partial(refuses, dtypes=(*_checks.ALL_FLOATS, *_checks.TOKENS)),
)
