"""`factored_gram`, `factored_gram_`: the Gram block of a linear map's per-sample gradients, without the gradients.

A linear map z_t = W a_t has the per-sample Jacobian rows J_nc = Σ_t g_nct a_ntᵀ, where a is its input and g the
cotangent at z. Their inner products factor: <J_nc, J_mc'> = Σ_{t,s} (a_nt·a_ms) (g_nct·g_mc's).
"""

from __future__ import annotations

import torch

from twophase_fast._types import Backend, Precision
from twophase_fast.ops import _checks, _dispatch, _library, _operands
from twophase_fast.ops._operands import GramOutput
from twophase_fast.ops._triton.backend import lazy, refuses
from twophase_fast.ops.factored_gram import cpu, reference


def factored_gram(
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None = None,
    g2: torch.Tensor | None = None,
    *,
    output: GramOutput = "full",
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Return the Gram block of the per-sample gradients Σ_t g[n,c,t] a[n,t]ᵀ, without forming them.

    full[n,m,c,c'] = Σ_{t,s} (a[n,t]·a2[m,s]) (g[n,c,t]·g2[m,c',s]); trace[n,m] = Σ_c full[n,m,c,c];
    diagonal[n,m,c] = full[n,m,c,c]. Without a2 and g2 the second side is the first, half of the work is saved and
    the result is exactly symmetric. Operands may have any strides and are only read.

    Args:
        a: Inputs of the layer `[N, T, d]`, float32, float64, bfloat16 or float16.
        g: Cotangents at its outputs `[N, C, T, p]`, dtype and device of `a`.
        a2: Inputs of the second side `[M, S, d]`, or None.
        g2: Cotangents of the second side `[M, C', S, p]`, or None; C' = C unless output="full".
        output: `"full"`, `"trace"` or `"diagonal"`.
        precision: As in `gram`; where Jacobians are made on the way, they are made in `"highest"`.
        backend: `"reference"`, `"cpu"`, `"triton"`, or None for the first that fits.

    Returns:
        full `[N, M, C, C']`, trace `[N, M]` or diagonal `[N, M, C]`, device of `a`, without gradient; summed
        and returned in float64 for float64 operands, else in float32. In memory full is the kernel matrix
        `[N·C, M·C']` and diagonal `[C, N, M]`.

    Raises:
        InputError: Wrong rank, shape, dtype, device, output or precision, or only one of a2 and g2.
        BackendError: The named backend cannot run on these inputs.
    """
    _check(a, g, a2, g2, output, precision)
    operands = [_operands.plain(operand) for operand in (a, g, a2, g2)]
    return torch.ops.twophase_fast.factored_gram(*operands, output, precision, backend or "")


def factored_gram_(
    out: torch.Tensor,
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None = None,
    g2: torch.Tensor | None = None,
    *,
    output: GramOutput = "full",
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Accumulate in place: out += the Gram block of `factored_gram`.

    `out` may have any strides, such as those of a kernel matrix seen by sample:
    `kernel.view(N, C, M, C).permute(0, 2, 1, 3)`. Without a2 and g2 only the entries (n,c) ≤ (m,c'), in the order of
    the kernel matrix, are defined afterwards; the others hold garbage until `symmetrize_` is called on that matrix,
    once, after the last accumulation.

    Args:
        out: full `[N, M, C, C']`, trace `[N, M]` or diagonal `[N, M, C]`, float64 for float64 operands, else
            float32; shares no memory with the operands.
        a: Inputs of the layer `[N, T, d]`, float32, float64, bfloat16 or float16.
        g: Cotangents at its outputs `[N, C, T, p]`.
        a2: Inputs of the second side `[M, S, d]`, or None.
        g2: Cotangents of the second side `[M, C', S, p]`, or None.
        output: `"full"`, `"trace"` or `"diagonal"`.
        precision: As in `factored_gram`.
        backend: As in `factored_gram`.

    Returns:
        `out`.

    Raises:
        InputError: Wrong rank, shape, dtype, device, output or precision, or `out` cannot be written in place.
        BackendError: The named backend cannot run on these inputs.
    """
    _check(a, g, a2, g2, output, precision)
    _operands.writable(out, _operands.gram_shape(output, g, g2), _operands.AXES[output], _operands.sums_of("a", a))
    operands = [_operands.plain(operand) for operand in (a, g, a2, g2)]
    torch.ops.twophase_fast.factored_gram_(out, *operands, output, precision, backend or "")
    return out


def _check(
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    precision: str,
) -> None:
    _checks.precision(precision)
    _operands.output_name(output)
    _operands.both_or_neither("a2", a2, "g2", g2)
    _check_side(("a", a, "N T d"), ("g", g, "N C T p"))
    _checks.floating("a", a, _checks.ALL_FLOATS)
    _checks.alike("g", g, "a", a)
    if a2 is None or g2 is None:
        return
    _check_side(("a2", a2, "M S d"), ("g2", g2, "M C' S p"))
    _checks.alike("a2", a2, "a", a)
    _checks.alike("g2", g2, "a", a)
    _operands.same_size("inputs (last axis)", ("a", a.shape[2]), ("a2", a2.shape[2]))
    _operands.same_size("outputs (last axis)", ("g", g.shape[3]), ("g2", g2.shape[3]))
    _operands.paired_classes(output, g.shape[1], g2.shape[1])


def _check_side(a: tuple[str, torch.Tensor, str], g: tuple[str, torch.Tensor, str]) -> None:
    _operands.operand(*a)
    _operands.operand(*g)
    _operands.same_size("samples (first axis)", (a[0], a[1].shape[0]), (g[0], g[1].shape[0]))
    _operands.same_size("positions", (a[0], a[1].shape[1]), (g[0], g[1].shape[2]))


_OPERANDS = "Tensor a, Tensor g, Tensor? a2, Tensor? g2, str output, str precision, str backend"
_library.define(f"factored_gram({_OPERANDS}) -> Tensor", fake=_operands.fake_gram)
_library.define(f"factored_gram_(Tensor(a!) out, {_OPERANDS}) -> ()")
_dispatch.add(
    "factored_gram",
    reference=reference.factored_gram,
    cpu=cpu.factored_gram,
    cpu_refuses=cpu.refuses,
    triton=lazy("factored_gram", "factored_gram"),
    triton_refuses=refuses,
)
_dispatch.add(
    "factored_gram_",
    reference=reference.factored_gram_,
    cpu=cpu.factored_gram_,
    cpu_refuses=cpu.refuses,
    triton=lazy("factored_gram", "factored_gram_"),
    triton_refuses=refuses,
)
