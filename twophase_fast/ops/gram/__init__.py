"""`gram`, `gram_`, `symmetrize_`: inner products of the rows of two matrices."""

from __future__ import annotations

import torch

from twophase_fast._types import Backend, InputError, Precision
from twophase_fast.ops import _checks, _cpu, _dispatch, _library
from twophase_fast.ops._triton.backend import lazy, refuses
from twophase_fast.ops.gram import cpu, reference

_AXES = "[N, P], or [B, N, P] with one batch axis"


def gram(
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Return the Gram block K[n, m] = Σ_p x[n, p] y[m, p].

    With `y=None` it is x xᵀ: only the upper triangle is computed, and the result is exactly symmetric.

    Args:
        x: `[N, P]` or `[B, N, P]`, float32, float64, bfloat16 or float16, any strides.
        y: `[M, P]` or `[B, M, P]`, dtype and device of `x`; None means `x`.
        precision: `"highest"` IEEE arithmetic of the dtype; `"high"` (relative error of a block at most 1e-5) and
            `"medium"` (2e-3) allow split or reduced products where the hardware has them. On a CPU that is AMX with
            float32 sums: operands are split into two bfloat16 parts, "medium" runs as "high", and where magnitudes
            leave the unit's range, or an operand is infinite or NaN, that part is computed as `"highest"`.
        backend: `"reference"`, `"cpu"`, `"triton"`, or None for the first that fits.

    Returns:
        `[N, M]` or `[B, N, M]`, device of `x`, without gradient; float64 for float64, else float32.

    Raises:
        InputError: Wrong rank, shape, dtype, device or precision.
        BackendError: The named backend cannot run on these inputs.
    """
    _check_operands(x, y, precision)
    return torch.ops.twophase_fast.gram(_library.plain(x), _plain_or_none(y), precision, backend or "")


def gram_(
    out: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Accumulate in place: out[n, m] += Σ_p x[n, p] y[m, p].

    With `y=None` only the entries n ≤ m are defined afterwards; the lower triangle holds garbage until
    `symmetrize_` is called, once, after the last accumulation.

    Args:
        out: `[N, M]` or `[B, N, M]`, float64 for float64 operands, else float32; any strides without overlap; shares
            no memory with `x` and `y`.
        x: `[N, P]` or `[B, N, P]`, float32, float64, bfloat16 or float16, any strides.
        y: `[M, P]` or `[B, M, P]`; None means `x`.
        precision: As in `gram`.
        backend: As in `gram`.

    Returns:
        `out`.

    Raises:
        InputError: Wrong rank, shape, dtype, device or precision, or `out` cannot be written in place.
        BackendError: The named backend cannot run on these inputs.
    """
    _check_operands(x, y, precision)
    check_out(out, x, _result_shape(x, y), "[(B,) N, M]")
    torch.ops.twophase_fast.gram_(out, _library.plain(x), _plain_or_none(y), precision, backend or "")
    return out


def symmetrize_(out: torch.Tensor, *, backend: Backend | None = None) -> torch.Tensor:
    """Mirror in place: out[m, n] = out[n, m] for n < m.

    Args:
        out: `[N, N]` or `[B, N, N]`, float32 or float64, any strides without overlap.
        backend: As in `gram`.

    Returns:
        `out`, exactly symmetric.

    Raises:
        InputError: `out` is not square, not floating, or cannot be written in place.
        BackendError: The named backend cannot run on this tensor.
    """
    _checks.tensor("out", out)
    _checks.floating("out", out)
    _checks.rank("out", out, (2, 3), "[N, N], or [B, N, N] with one batch axis")
    _checks.writable("out", out)
    if out.shape[-1] != out.shape[-2]:
        raise InputError(f"out has shape {tuple(out.shape)}; its last two axes must be equal to be made symmetric")
    torch.ops.twophase_fast.symmetrize_(out, backend or "")
    return out


def _check_operands(x: torch.Tensor, y: torch.Tensor | None, precision: str) -> None:
    _checks.precision(precision)
    _checks.tensor("x", x)
    _checks.floating("x", x, _checks.ALL_FLOATS)
    _checks.rank("x", x, (2, 3), _AXES)
    if y is None:
        return
    _checks.tensor("y", y)
    _checks.alike("y", y, "x", x)
    _checks.rank("y", y, (x.ndim,), f"as many axes as x, which has shape {tuple(x.shape)}")
    if y.shape[-1] != x.shape[-1] or y.shape[:-2] != x.shape[:-2]:
        raise InputError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; they may differ "
            "in their rows only, the last axis but one"
        )


def check_out(out: torch.Tensor, x: torch.Tensor, shape: tuple[int, ...], axes: str) -> None:
    """Check what Gram blocks of operands like x are added to.

    Raises:
        InputError: Its shape, dtype or device is wrong, it requires a gradient, or its elements overlap in memory.
    """
    _checks.tensor("out", out)
    wanted = x.new_empty(0, dtype=reference.result_dtype(x.dtype))
    _checks.alike("out", out, f"a Gram block of {x.dtype} operands", wanted)
    _checks.writable("out", out)
    _checks.shape("out", out, shape, axes)


def _result_shape(x: torch.Tensor, y: torch.Tensor | None) -> tuple[int, ...]:
    return (*x.shape[:-1], (x if y is None else y).shape[-2])


def _plain_or_none(y: torch.Tensor | None) -> torch.Tensor | None:
    return None if y is None else _library.plain(y)


def _fake_gram(x: torch.Tensor, y: torch.Tensor | None, precision: str, backend: str) -> torch.Tensor:
    return x.new_empty(_result_shape(x, y), dtype=reference.result_dtype(x.dtype))


_library.define("gram(Tensor x, Tensor? y, str precision, str backend) -> Tensor", fake=_fake_gram)
_library.define("gram_(Tensor(a!) out, Tensor x, Tensor? y, str precision, str backend) -> ()")
_library.define("symmetrize_(Tensor(a!) out, str backend) -> ()")

_dispatch.add(
    "gram",
    reference=reference.gram,
    cpu=cpu.gram,
    cpu_refuses=cpu.refuses,
    triton=lazy("gram", "gram"),
    triton_refuses=refuses,
)
_dispatch.add(
    "gram_",
    reference=reference.gram_,
    cpu=cpu.gram_,
    cpu_refuses=cpu.refuses,
    triton=lazy("gram", "gram_"),
    triton_refuses=refuses,
)
_dispatch.add(
    "symmetrize_",
    reference=reference.symmetrize_,
    cpu=cpu.symmetrize_,
    cpu_refuses=_cpu.refuses,
    triton=lazy("gram", "symmetrize_"),
    triton_refuses=refuses,
)
