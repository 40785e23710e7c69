"""`random_projection`, `random_projection_`: products with a matrix of random signs that is never stored.

S [P, D] has independent entries +1 and -1, each a function of (seed, row, column) alone, the same on every backend and
device, so that E S Sᵀ = D·1 and <x S, y S> / D is an unbiased estimate of <x, y>. Rows are counted over all parameters:
a long vector may be projected segment by segment, every segment with the offset at which it starts.
"""

from __future__ import annotations

from functools import partial

import torch

from twophase_fast._types import Backend, InputError, Precision
from twophase_fast.ops import _checks, _dispatch, _library, _operands
from twophase_fast.ops._triton.backend import lazy, refuses
from twophase_fast.ops.random_projection import cpu, reference

_LIMIT = 2**63


def random_projection(
    x: torch.Tensor,
    directions: int,
    *,
    seed: int,
    offset: int = 0,
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Return the projection y[r, j] = Σ_q x[r, q] S[offset + q, j] on random signs S.

    S[q, j] = 2b - 1, where b is bit j mod 32 of word ⌊j/32⌋ mod 4 of Philox-4x32-10 with the counter
    (q mod 2³², ⌊q/2³²⌋, ⌊j/128⌋, 0) and the key (seed mod 2³², ⌊seed/2³²⌋). The entries have variance 1: divide by √D
    for a projection that keeps norms, or products of two projections by D.

    Args:
        x: `[R, P]`, float32 or float64, any strides.
        directions: D, columns of S; fewer are a prefix of more.
        seed: Decides S; from 0 to 2⁶³ - 1.
        offset: Row of S that meets the first column of x, such as the position of a parameter among all.
        precision: `"highest"` IEEE arithmetic of the dtype; `"high"` and `"medium"` allow split or reduced products
            where the hardware has them.
        backend: `"reference"`, `"cpu"`, `"triton"`, or None for the first that fits.

    Returns:
        `[R, D]`, dtype and device of `x`, without gradient.

    Raises:
        InputError: Wrong rank, dtype or precision, or a number that is out of range.
        BackendError: The named backend cannot run on these inputs.

    Source:
        Achlioptas (2003), doi 10.1016/S0022-0000(03)00025-4, for projections by random signs; Salmon et al. (2011), doi
        10.1145/2063384.2063405, for Philox.
    """
    _check(x, seed, offset, precision)
    _check_number("directions", directions, least=1)
    arguments = _library.plain(x), directions, seed, offset, precision, backend or ""
    return torch.ops.twophase_fast.random_projection(*arguments)


def random_projection_(
    out: torch.Tensor,
    x: torch.Tensor,
    *,
    seed: int,
    offset: int = 0,
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Accumulate in place: out[r, j] += Σ_q x[r, q] S[offset + q, j], with S as in `random_projection`.

    Args:
        out: `[R, D]`, dtype and device of `x`, any strides without overlap; shares no memory with `x`.
        x: `[R, P]`, float32 or float64, any strides.
        seed: Decides S; from 0 to 2⁶³ - 1.
        offset: Row of S that meets the first column of x.
        precision: As in `random_projection`.
        backend: As in `random_projection`.

    Returns:
        `out`.

    Raises:
        InputError: Wrong rank, shape, dtype, device or precision, a number that is out of range, or `out` cannot be
            written in place.
        BackendError: The named backend cannot run on these inputs.
    """
    _check(x, seed, offset, precision)
    _operands.operand("out", out, "R D")
    _operands.writable(out, (x.shape[0], out.shape[1]), "[R, D]", ("x", x))
    torch.ops.twophase_fast.random_projection_(out, _library.plain(x), seed, offset, precision, backend or "")
    return out


def _check(x: torch.Tensor, seed: int, offset: int, precision: str) -> None:
    _checks.precision(precision)
    _operands.operand("x", x, "R P")
    _checks.floating("x", x)
    _check_number("seed", seed)
    _check_number("offset", offset, end=_LIMIT - x.shape[1])


def _check_number(name: str, value: int, least: int = 0, end: int = _LIMIT) -> None:
    """Check a whole number.

    Raises:
        InputError: It is none, or out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < end:
        raise InputError(f"{name}={value!r} must be a whole number from {least} to {end - 1}")


def _fake_random_projection(
    x: torch.Tensor, directions: int, seed: int, offset: int, precision: str, backend: str
) -> torch.Tensor:
    return x.new_empty(x.shape[0], directions)


_NUMBERS = "int seed, int offset, str precision, str backend"
_library.define(
    f"random_projection(Tensor x, int directions, {_NUMBERS}) -> Tensor",
    fake=_fake_random_projection,
)
_library.define(f"random_projection_(Tensor(a!) out, Tensor x, {_NUMBERS}) -> ()")
_dispatch.add(
    "random_projection",
    reference=reference.random_projection,
    cpu=cpu.random_projection,
    cpu_refuses=cpu.refuses,
    triton=lazy("random_projection", "random_projection"),
    triton_refuses=partial(refuses, dtypes=_checks.FLOATS),
)
_dispatch.add(
    "random_projection_",
    reference=reference.random_projection_,
    cpu=cpu.random_projection_,
    cpu_refuses=cpu.refuses,
    triton=lazy("random_projection", "random_projection_"),
    triton_refuses=partial(refuses, dtypes=_checks.FLOATS),
)
