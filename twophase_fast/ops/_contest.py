"""A kernel of somebody's own against ours: checked in higher precision first, then timed by turns.

inputs (seeded) ──► truth: reference backend in float64 (NumPy's long double where the row has its own)
              ├──► error of the rival  > allowed: refused, not timed
              └──► ours, rival, rival, ours, ...   medians
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.utils import _pytree as pytree

from twophase_fast import ops
from twophase_fast._types import InputError, TwoPhaseError
from twophase_fast.ops._case import Inputs, OpCase
from twophase_fast.ops._workloads import DEFAULT, OpWorkload
from twophase_fast.ops.pair_moments.reference import FIELDS

PROMISED = {"high": 1e-5, "medium": 2e-3}
"""Largest relative error that a precision below "highest" allows."""

MAY_BE_ZERO = ("batch", "m", "s", "padding")  # no batch axis, no second side, all pairs of runs, no padding

Rival = Callable[..., Any]


class WrongResultError(TwoPhaseError):
    """A rival's result is not the op's."""


def names() -> list[str]:
    """Return the ops that can be contested: those that return something new."""
    return list(dict.fromkeys(row.op for row in DEFAULT if not row.op.endswith("_")))


def workload(op: str, sizes: Mapping[str, int]) -> OpWorkload:
    """Return an op at its default sizes, some of them replaced.

    Raises:
        InputError: There is no such op or no such size, or a size is too small.
    """
    if op not in names():
        raise InputError(f"there is no op {op!r} to measure; use one of {', '.join(names())}")
    row = next(row for row in DEFAULT if row.op == op)
    unknown = [name for name in sizes if name not in row.sizes]
    if unknown or any(size < (name not in MAY_BE_ZERO) for name, size in sizes.items()):
        given = ", ".join(f"{name}={size}" for name, size in sizes.items())
        known = ", ".join(f"{name}={size}" for name, size in row.sizes.items())
        zero = " and ".join(name for name in row.sizes if name in MAY_BE_ZERO)
        raise InputError(
            f"{op} cannot have the sizes {given}; it has, by default, {known}, of which "
            + (f"only {zero} may be 0" if zero else "none may be 0")
        )
    return OpWorkload(op, {**row.sizes, **sizes}, row.flops, row.bytes)


@dataclass(frozen=True)
class Outcome:
    """One side of a contest.

    Attributes:
        name: Who.
        error: Largest relative error, in the Frobenius norm, over the values of the result.
        seconds: Median time of a call.
    """

    name: str
    error: float
    seconds: float


class Contest:
    """One op at one size, with its truth.

    Args:
        row: The op and its sizes.
        dtype: Element type of the inputs.
        precision: `highest`, `high` or `medium`; sets the error allowed, and is passed on to ours.

    Attributes:
        allowed: Largest error of a result that counts as right: for `highest` twice that of plain torch in the same
            dtype, or of one rounding; else what the precision promises.

    Raises:
        InputError: The op does not take this dtype, or inputs of these sizes cannot be made.
    """

    def __init__(self, row: OpWorkload, dtype: torch.dtype, precision: str = "highest") -> None:
        self.row, self.case, self.precision = row, row.case, precision
        if dtype not in self.case.dtypes:
            known = ", ".join(str(known).removeprefix("torch.") for known in self.case.dtypes)
            raise InputError(f"{row.op} does not take {str(dtype).removeprefix('torch.')}; use one of {known}")
        try:
            self.inputs = self.case.inputs(dict(row.sizes), dtype)
            self.truth = _truth(self.case, self.inputs)
        except TwoPhaseError:
            raise
        except RuntimeError as error:  # torch's: out of memory, or an image smaller than its kernel
            raise InputError(f"{row}: torch cannot make inputs and truth of these sizes: {error}") from error
        self.allowed = PROMISED.get(precision) or _rounding(self.case, self.inputs, self.truth, dtype)

    def ours(self, backend: str | None = None) -> Callable[[], Any]:
        """Return the call of ours, by the named backend or the first that fits."""
        wanted = {**self.inputs, "backend": backend}
        if "precision" in inspect.signature(getattr(ops, self.row.op)).parameters:
            wanted["precision"] = self.precision
        return lambda: self.case.call(**wanted)

    def theirs(self, rival: Rival) -> Callable[[], Any]:
        """Return the call of a rival: the op's arguments that differ from their defaults, tensors by position."""
        positional, named = arguments(getattr(ops, self.row.op), self.inputs)
        return lambda: rival(*positional, **named)

    def check(self, name: str, call: Callable[[], Any]) -> float:
        """Call once; return the error.

        Raises:
            WrongResultError: The result is of another kind or shape, wrong, or the inputs were changed.
        """
        before = pytree.tree_map_only(torch.Tensor, torch.clone, self.inputs)
        values = self._values(name, call())
        error = relative_error(values, self.truth)
        if error > self.allowed:
            raise WrongResultError(
                f"{name} is wrong: relative error {error:.1e}, at most {self.allowed:.1e} is allowed at precision "
                f"{self.precision!r}; it was not timed{_shapes(values, self.truth)}"
            )
        if not _same(before, self.inputs):
            raise WrongResultError(f"{name} changed its inputs; it was not timed: work on a copy")
        return error

    def time(self, calls: Mapping[str, Callable[[], Any]], repeats: int) -> list[Outcome]:
        """Check every side, then time them by turns, the first one changing every round.

        Raises:
            WrongResultError: A side is wrong; nothing was timed.
        """
        errors = {name: self.check(name, call) for name, call in calls.items()}
        times = alternate(list(calls.values()), repeats)
        return [Outcome(name, errors[name], median(seconds)) for name, seconds in zip(calls, times)]

    def _values(self, name: str, result: Any) -> list[torch.Tensor]:
        if self.row.op == "pair_moments" and isinstance(result, Mapping) and set(result) >= set(FIELDS):
            result = ops.PairMoments(**{field: torch.as_tensor(result[field]) for field in FIELDS})
        wrong = ""
        if self.row.op == "pair_moments":
            if not isinstance(result, ops.PairMoments):
                wrong = f"a PairMoments or a dict of {', '.join(FIELDS)}"
        elif self.case.values is list:  # of the parts of a tuple
            parts = result if isinstance(result, tuple | list) else ()
            if len(parts) != len(self.truth) or not all(isinstance(part, torch.Tensor) for part in parts):
                wrong = f"a tuple of {len(self.truth)} Tensors"
        elif not isinstance(result, torch.Tensor):
            wrong = "a Tensor"
        if wrong:
            given = type(result).__name__ + (f" of {len(result)}" if isinstance(result, tuple) else "")
            raise WrongResultError(f"{name} returned a {given}; expected {wrong}; it was not timed")
        return self.case.values(result)


def arguments(op: Callable[..., Any], inputs: Inputs) -> tuple[list[Any], Inputs]:
    """Split an op's inputs into positional and named ones, leaving out those at their defaults."""
    parameters = inspect.signature(op).parameters
    given = {name: value for name, value in inputs.items() if not _is(value, parameters[name].default)}
    positional = [value for name, value in given.items() if parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY]
    named = {name: value for name, value in given.items() if parameters[name].kind is inspect.Parameter.KEYWORD_ONLY}
    return positional, named


def relative_error(values: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]) -> float:
    """Return the largest ‖value − truth‖_F / ‖truth‖_F; infinite where shapes differ or a value is not finite."""
    worst = 0.0
    for value, true in zip(values, truth, strict=True):
        if value.shape != true.shape:
            return float("inf")
        difference, norm = float((value.double() - true).norm()), float(true.norm())
        relative = difference / norm if norm else (float("inf") if difference else 0.0)
        worst = max(worst, relative if relative == relative else float("inf"))
    return worst


def alternate(calls: Sequence[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Return the seconds of every call, `repeats` times each, by turns."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats):
        for index in sorted(range(len(calls)), reverse=bool(turn % 2)):
            started = time.perf_counter()
            calls[index]()
            times[index].append(time.perf_counter() - started)
    return times


def _truth(case: OpCase, inputs: Inputs) -> list[torch.Tensor]:
    if case.truth is not None:
        return case.truth(inputs)
    wide = pytree.tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
    return case.values(case.call(**wide, backend="reference"))


def _rounding(case: OpCase, inputs: Inputs, truth: Sequence[torch.Tensor], dtype: torch.dtype) -> float:
    """Twice the error of plain torch in this dtype, or of one rounding (of float32, for shorter dtypes).

    The truth of a float64 result is a float64 result: there plain torch in float32 is measured, its error is scaled by
    the ratio of the roundings, and once more is allowed for the truth.
    """
    if dtype == torch.float64 and case.truth is None:
        single = pytree.tree_map_only(torch.Tensor, lambda t: t.float() if t.is_floating_point() else t, inputs)
        in_float = _rounding(case, single, _truth(case, single), torch.float32)
        return 1.5 * in_float * torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    plain = relative_error(case.values(case.call(**inputs, backend="reference")), truth)
    return 2 * max(plain, min(torch.finfo(kind).eps for kind in (dtype, torch.float32)))


def _is(value: Any, default: Any) -> bool:
    return not isinstance(value, torch.Tensor) and type(value) is type(default) and value == default


def _same(before: Inputs, after: Inputs) -> bool:
    pairs = zip(pytree.tree_leaves(before), pytree.tree_leaves(after))
    return all(_equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two tensors hold the same values, NaN in the same places."""
    if not a.is_floating_point():
        return torch.equal(a, b)
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def _shapes(values: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]) -> str:
    wrong = [(tuple(v.shape), tuple(t.shape)) for v, t in zip(values, truth) if v.shape != t.shape]
    return f"; its shape is {wrong[0][0]}, expected {wrong[0][1]}" if wrong else ""
