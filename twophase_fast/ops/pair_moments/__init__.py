"""`pair_moments`, `one_minus_cos`: how two sets of tensors differ, in one pass over memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from twophase_fast._types import Backend, InputError
from twophase_fast.ops import _checks, _dispatch, _library
from twophase_fast.ops._triton.backend import lazy, refuses
from twophase_fast.ops.pair_moments import cpu, reference
from twophase_fast.ops.pair_moments.reference import FIELDS

Run: TypeAlias = torch.Tensor | Iterable[torch.Tensor]
_SMALLEST, _LARGEST = 1e-200, 1e200


@dataclass(frozen=True)
class PairMoments:
    """Moments of pairs (x, y) with d = y − x, float64.

    Every field has one shape: `[L]` for one run against one, `[R, L]` for R against one, `[R, R, L]` for all
    pairs (first axis x, second axis y), with L the number of tensors of a run; `total` drops the axis L.

    Attributes:
        xy: <x, y>.
        xx: ‖x‖².
        yy: ‖y‖².
        dd: ‖d‖².
        dx: <d, x>.
        ds: <d, x + y> = ‖y‖² − ‖x‖² without cancellation.
        max_abs_d: max |d|; NaN if any d is NaN.
        changed: Number of entries with d ≠ 0 (a NaN is).
    """

    xy: torch.Tensor
    xx: torch.Tensor
    yy: torch.Tensor
    dd: torch.Tensor
    dx: torch.Tensor
    ds: torch.Tensor
    max_abs_d: torch.Tensor
    changed: torch.Tensor

    @property
    def total(self) -> PairMoments:
        """The same moments over all tensors of a run taken together."""
        sums = {name: getattr(self, name).sum(-1) for name in FIELDS}
        return PairMoments(**{**sums, "max_abs_d": self.max_abs_d.amax(-1)})


def pair_moments(xs: Run | Iterable[Run], ys: Run | None = None, *, backend: Backend | None = None) -> PairMoments:
    """Return inner products, norms and differences of pairs of runs, each element read once.

    A *run* is a tensor or a list of tensors (the parameters of one model). Products are formed and summed in
    float64 whatever the dtype; the result is bitwise the same for any number of threads.

    Args:
        xs: One run, or a list of R runs (a list of lists).
        ys: One run; None for all pairs among the R runs of `xs`.
        backend: `"reference"`, `"cpu"`, `"triton"`, or None for the first that fits.

    Returns:
        Moments per tensor and, as `.total`, over a whole run; `[L]`, `[R, L]` or `[R, R, L]` (see
        `PairMoments`). The entries of a run are float32, float64, bfloat16 or float16, equal in dtype and
        shape at one position in all runs.

    Raises:
        InputError: No tensors, or tensors that do not match in number, shape, dtype or device.
        BackendError: The named backend cannot run on these inputs.
    """
    runs, several = _runs("xs", xs)
    if ys is None and not several:
        raise InputError(
            "pair_moments got one run and ys=None; pass ys, or a list of runs (list of lists) for all pairs"
        )
    other = [] if ys is None else _one_run("ys", ys)
    _check_alike(runs, other)
    flat = [tensor for run in runs for tensor in run]
    table = torch.ops.twophase_fast.pair_moments(flat, other, len(runs), backend or "")  # [R, S, L, 8]
    if ys is not None:
        table = table[:, 0] if several else table[0, 0]
    return PairMoments(*table.unbind(-1))


def one_minus_cos(a: Run, b: Run, *, backend: Backend | None = None) -> float:
    """Return 1 − <a, b> / (‖a‖ ‖b‖), accurate relative to itself however close a and b are.

    A first pass gives <a, b>, ‖a‖², ‖b‖². For cos ≥ 0 a second pass forms the residual e = b − s·a with
    s = <a, b>/‖a‖² and one rounding per element, removes what the rounding of s left along a, and returns
    (‖e‖²/‖b‖²)/(1 + cos). In exact arithmetic e is d − a<d, a>/‖a‖² with d = b − a, but it is accurate at any ratio
    of the norms, not only near 1. For cos < 0 there is no cancellation and 1 − cos is returned directly.
    The relative error stays below 1e-9 for relative differences down to 1e-10, also where d is nearly parallel to a;
    identical inputs give exactly 0.

    Args:
        a: A tensor or a list of tensors, taken as one long vector; float32, float64, bfloat16 or float16, as stored.
        b: The same number of tensors, with the same shapes and dtypes.
        backend: As in `pair_moments`.

    Returns:
        A number in [0, 2].

    Raises:
        InputError: The tensors do not match, hold NaN or infinity, are all zero, or have a norm beyond 1e±100.
        BackendError: The named backend cannot run on these inputs.
    """
    first, second = _one_run("a", a), _one_run("b", b)
    _check_alike([first], second, names=("a", "b"))
    table = torch.ops.twophase_fast.pair_moments(first, second, 1, backend or "")[0, 0]  # [L, 8]
    xy, xx, yy = table[:, :3].sum(0).tolist()
    _check_norm("a", xx)
    _check_norm("b", yy)
    cos = xy / (math.sqrt(xx) * math.sqrt(yy))
    if cos < 0.0:
        return 1.0 - max(cos, -1.0)
    ee, ex = torch.ops.twophase_fast.residual_moments(first, second, xy / xx, backend or "").sum(0).tolist()
    residual = max(ee - ex * (ex / xx), 0.0)
    return residual / yy / (1.0 + cos)


def _runs(name: str, value: Run | Iterable[Run]) -> tuple[list[list[torch.Tensor]], bool]:
    """Return the runs in `value` and whether it was a list of runs."""
    if isinstance(value, torch.Tensor):
        return [_one_run(name, value)], False
    entries = _listed(name, value)
    if entries and not isinstance(entries[0], torch.Tensor):
        return [_one_run(f"{name}[{index}]", entry) for index, entry in enumerate(entries)], True
    return [_one_run(name, entries)], False


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, Iterable) and not isinstance(value, Mapping | torch.nn.Module):
        return list(value)
    raise InputError(
        f"{name} is a {type(value).__name__}; expected a tensor or a list of tensors: of a module pass "
        "list(module.parameters()), of a state dict list(state.values())"
    )


def _one_run(name: str, value: Run) -> list[torch.Tensor]:
    entries = [value] if isinstance(value, torch.Tensor) else _listed(name, value)
    if not entries:
        raise InputError(f"{name} holds no tensors; pass a tensor or a list of tensors")
    for index, entry in enumerate(entries):
        _checks.floating(f"{name}[{index}]", _checks.tensor(f"{name}[{index}]", entry), _checks.ALL_FLOATS)
    return _library.all_plain(entries)


def _check_alike(
    runs: list[list[torch.Tensor]], other: list[torch.Tensor], names: tuple[str, str] = ("xs", "ys")
) -> None:
    first, second = names
    labelled = [(f"{first}[{index}]" if len(runs) > 1 else first, run) for index, run in enumerate(runs)]
    pattern_name, pattern = labelled[0]
    for name, run in [*labelled[1:], *([(second, other)] if other else [])]:
        if len(run) != len(pattern):
            raise InputError(
                f"{name} has {len(run)} tensors but {pattern_name} has {len(pattern)}; pass as many in both"
            )
        for index, (tensor, like) in enumerate(zip(run, pattern)):
            _checks.alike(f"{name}[{index}]", tensor, f"{pattern_name}[{index}]", like)
            _checks.shape(f"{name}[{index}]", tensor, like.shape, f"the shape of {pattern_name}[{index}]")


def _check_norm(name: str, square: float) -> None:
    if square == 0.0:
        raise InputError(f"{name} is all zero, its direction is undefined; 1 − cos needs a vector with a norm")
    if math.isnan(square):
        raise InputError(f"{name} holds NaN or infinity; look for it with torch.isfinite")
    if not _SMALLEST < square < _LARGEST:
        raise InputError(
            f"{name} has squared norm {square:g}, too close to the ends of float64 (or it holds "
            "infinity); scale it first"
        )


def _fake_pair_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], runs: int, backend: str) -> torch.Tensor:
    shape = (runs, 1 if ys else runs, len(xs) // runs, len(FIELDS))
    return xs[0].new_empty(shape, dtype=torch.float64)


def _fake_residual_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], scale: float, backend: str) -> torch.Tensor:
    return xs[0].new_empty((len(xs), 2), dtype=torch.float64)


_library.define("pair_moments(Tensor[] xs, Tensor[] ys, int runs, str backend) -> Tensor", fake=_fake_pair_moments)
_library.define(
    "residual_moments(Tensor[] xs, Tensor[] ys, float scale, str backend) -> Tensor",
    fake=_fake_residual_moments,
)
_dispatch.add(
    "pair_moments",
    reference=reference.pair_moments,
    cpu=cpu.pair_moments,
    cpu_refuses=cpu.refuses,
    triton=lazy("pair_moments", "pair_moments"),
    triton_refuses=refuses,
)
_dispatch.add(
    "residual_moments",
    reference=reference.residual_moments,
    cpu=cpu.residual_moments,
    cpu_refuses=cpu.refuses,
    triton=lazy("pair_moments", "residual_moments"),
    triton_refuses=refuses,
)
