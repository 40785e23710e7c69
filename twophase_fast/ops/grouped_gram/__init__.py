"""`grouped_gram_`: the Gram blocks of many parameter segments, added into one kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from twophase_fast._types import Backend, InputError, Precision
from twophase_fast.ops import _checks, _dispatch, _library
from twophase_fast.ops._triton.backend import lazy, refuses
from twophase_fast.ops.gram import check_out
from twophase_fast.ops.grouped_gram import cpu, reference


def grouped_gram_(
    out: torch.Tensor,
    xs: Iterable[torch.Tensor],
    ys: Iterable[torch.Tensor] | None = None,
    *,
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Accumulate in place: out[n, m] += Σ_l Σ_p xs[l][n, p] ys[l][m, p].

    The same as `gram_` of every pair of segments, in one launch on a GPU: small segments then do not leave it idle.
    With `ys=None` only the entries n ≤ m are defined afterwards, until `symmetrize_` is called.

    Args:
        out: `[N, M]`, float64 for float64 operands, else float32; any strides without overlap.
        xs: Segments `[N, P_l]` with lengths P_l of their own, float32, float64, bfloat16 or float16, any strides.
        ys: As many segments `[M, P_l]`; None means `xs`.
        precision: As in `gram`.
        backend: As in `gram`.

    Returns:
        `out`.

    Raises:
        InputError: No segments, or wrong number, rank, shape, dtype, device or precision; or `out` cannot be written.
        BackendError: The named backend cannot run on these inputs.
    """
    left, right = list(xs), None if ys is None else list(ys)
    _checks.precision(precision)
    _check_segments("xs", left, left)
    if right is not None:
        _check_segments("ys", right, left)
    check_out(out, left[0], (left[0].shape[0], (right or left)[0].shape[0]), "[N, M]")
    operands = _library.all_plain(left), _library.all_plain(right or [])
    torch.ops.twophase_fast.grouped_gram_(out, *operands, precision, backend or "")
    return out


def _check_segments(name: str, segments: Sequence[torch.Tensor], like: Sequence[torch.Tensor]) -> None:
    """Check one side: same dtype, device and rows throughout, and the lengths of `like`.

    Raises:
        InputError: It is not so.
    """
    if not segments or len(segments) != len(like):
        raise InputError(f"{name} holds {len(segments)} segments; expected {len(like) or 'at least one'}")
    for index, segment in enumerate(segments):
        label = f"{name}[{index}]"
        _checks.tensor(label, segment)
        _checks.floating(label, segment, _checks.ALL_FLOATS)
        _checks.rank(label, segment, (2,), "[N, P]")
        _checks.alike(label, segment, "xs[0]", like[0])
        shape = (segments[0].shape[0], like[index].shape[1])
        _checks.shape(label, segment, shape, f"the rows of {name}[0] and the length of xs[{index}]")


_library.define("grouped_gram_(Tensor(a!) out, Tensor[] xs, Tensor[] ys, str precision, str backend) -> ()")
_dispatch.add(
    "grouped_gram_",
    reference=reference.grouped_gram_,
    cpu=cpu.grouped_gram_,
    cpu_refuses=cpu.refuses,
    triton=lazy("grouped_gram", "grouped_gram_"),
    triton_refuses=refuses,
)
