"""The first stage of `make gpu-check`: every op, dtype and precision once on a small shape, against float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from benchmarks.accuracy import relative_error
from benchmarks.gpu_items import Item, Note
from twophase_fast.ops import _dispatch
from twophase_fast.ops._case import Inputs, OpCase, Sizes
from twophase_fast.ops._cases import OP_CASES

BOUNDS = {"high": 1e-5, "medium": 2e-3}
ROUNDINGS = 4
"""Errors of so many roundings are never too many: plain torch may happen to make none."""


def items(device: torch.device, small: bool = False) -> Iterator[Item]:
    """Yield one item per op, dtype and precision; `small` ones run in seconds under the interpreter."""
    for case in OP_CASES:
        if backend_of(case.name) is None:
            continue
        sizes = case.sizes[0] if small else case.sizes[-1]
        for dtype in case.dtypes:
            yield _item(case, sizes, dtype, "highest", device)
        if "precision" in case.inputs(case.sizes[0], torch.float32):
            yield from (_item(case, sizes, torch.float32, precision, device) for precision in BOUNDS)


def backend_of(op: str) -> str | None:
    """Return the backend that runs an op on a GPU: Triton, or torch's libraries; None for neither."""
    return next((name for name in ("triton", "library") if name in _dispatch.backends(op)), None)


def _item(case: OpCase, sizes: Sizes, dtype: torch.dtype, precision: str, device: torch.device) -> Item:
    def run(note: Note) -> dict[str, Any]:
        """Check one op."""
        return check(case, sizes, dtype, precision, device)

    return Item(f"{case.name} {str(dtype).removeprefix('torch.')} {precision}", run)


def check(case: OpCase, sizes: Sizes, dtype: torch.dtype, precision: str, device: torch.device) -> dict[str, Any]:
    """Return status, error and allowed error of an op on a device."""
    inputs = case.inputs(sizes, dtype)
    if "precision" in inputs:
        inputs = {**inputs, "precision": precision}
    exact = _truth(case, inputs)
    got = _values(case, _mapped(inputs, lambda t: t.to(device)), backend_of(case.name))
    error = _error([value.cpu() for value in got], exact)
    if precision in BOUNDS:
        allowed = BOUNDS[precision]
    else:
        plain = _values(case, inputs, "reference")
        allowed = 2 * _error(plain, exact) + ROUNDINGS * torch.finfo(plain[0].dtype).eps
    return {"status": "right" if error <= allowed else "wrong", "error": error, "allowed": allowed, "sizes": sizes}


def _truth(case: OpCase, inputs: Inputs) -> list[torch.Tensor]:
    if case.truth is not None:
        return case.truth(inputs)
    wide = _mapped(inputs, lambda t: t.double() if t.is_floating_point() else t)
    return _values(case, wide, "reference")


def _values(case: OpCase, inputs: Inputs, backend: str | None) -> list[torch.Tensor]:
    return case.values(case.call(**_mapped(inputs, torch.clone), backend=backend))


def _mapped(inputs: Inputs, function: Any) -> Inputs:
    return pytree.tree_map_only(torch.Tensor, function, inputs)


def _error(got: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    """Return the largest relative error; infinite where a value that shall be zero is not."""
    return max(_one_error(value.double(), true.double()) for value, true in zip(got, exact, strict=True))


def _one_error(value: torch.Tensor, true: torch.Tensor) -> float:
    if torch.equal(value, true):
        return 0.0
    return relative_error(value, true) if bool((true != 0).any()) else float("inf")
