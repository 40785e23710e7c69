"""What every interpreted kernel must show: the errors of its precision mode against the float64 reference."""

from __future__ import annotations

import torch

from tests.ops.test_op_properties import budget, error, mapped, same_bits, truth, values
from twophase_fast.ops._case import OpCase
from twophase_fast.ops._cases import OP_CASES
from twophase_fast.ops._triton import modes

BOUNDS = {"high": 1e-5, "medium": 2e-3}
"""Largest relative Frobenius error of float32 results by precision; "highest" has the budget of plain torch.

The interpreter rounds operands as tensor cores do (`ops/_triton/_rounding.py`); it cuts off where devices may round, so
these checks bound the error of `"medium"` from above.
"""

PLATFORMS = tuple(modes.FLOAT32_MODES)


def case_of(name: str) -> OpCase:
    """The row of an op."""
    return next(case for case in OP_CASES if case.name == name)


def inputs_of(case: OpCase, sizes: dict, dtype: torch.dtype, precision: str = "highest") -> dict:
    """Inputs of a row, with another precision where the op has one."""
    inputs = case.inputs(sizes, dtype)
    return {**inputs, "precision": precision} if "precision" in inputs else inputs


def assert_accurate(
    case: OpCase, sizes: dict, dtype: torch.dtype, precision: str = "highest", layout=torch.clone
) -> None:
    """The Triton version is as accurate as its precision promises, whatever the layout of the inputs."""
    inputs = inputs_of(case, sizes, dtype, precision)
    exact = truth(case, inputs)
    reduced = dtype == torch.float32 and precision in BOUNDS
    allowed = BOUNDS[precision] if reduced else budget(case, inputs, exact)
    got = case.values(case.call(**mapped(inputs, layout), backend="triton"))
    assert error(got, exact) <= allowed, (case.name, sizes, dtype, precision, error(got, exact))


def assert_repeatable(case: OpCase, sizes: dict, dtype: torch.dtype) -> None:
    """Two runs give the same bits."""
    inputs = inputs_of(case, sizes, dtype)
    first, second = values(case, inputs, "triton"), values(case, inputs, "triton")
    assert all(same_bits(a, b) for a, b in zip(first, second)), (case.name, sizes, dtype)


def on_platform(monkeypatch, platform: str) -> None:
    """Let kernels run in the modes of another platform."""
    monkeypatch.setattr(modes, "platform", lambda: platform)
