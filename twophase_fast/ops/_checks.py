"""Validation shared by the public functions of all ops; each raises `InputError` with the argument's name."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twophase_fast._types import InputError

FLOATS = (torch.float32, torch.float64)
ALL_FLOATS = (*FLOATS, torch.bfloat16, torch.float16)
TOKENS = (torch.int64, torch.int32)
PRECISIONS = ("highest", "high", "medium")


def tensors_in(arguments: Sequence[object]) -> list[torch.Tensor]:
    """Return the tensors among an op's arguments, also those in lists."""
    found: list[torch.Tensor] = []
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            found.append(argument)
        elif isinstance(argument, (list, tuple)):
            found += tensors_in(argument)
    return found


def tensor(name: str, value: object) -> torch.Tensor:
    """Return `value` if it is a dense tensor.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(value, torch.Tensor):
        raise InputError(f"{name} must be a torch.Tensor, got {type(value).__name__}; wrap it with torch.as_tensor")
    if value.layout != torch.strided:
        raise InputError(f"{name} must be a dense tensor, got layout {value.layout}; call .to_dense() on it")
    return value


def floating(name: str, value: torch.Tensor, dtypes: Sequence[torch.dtype] = FLOATS) -> None:
    """Check that the dtype of `value` is one of `dtypes`.

    Raises:
        InputError: It is not.
    """
    if value.dtype not in dtypes:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise InputError(f"{name} has dtype {value.dtype}; expected one of {expected}: convert it with .to(dtype)")


def alike(name: str, value: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """Check that two tensors share dtype and device.

    Raises:
        InputError: They do not.
    """
    if value.dtype != other.dtype:
        raise InputError(f"{name} is {value.dtype} but {other_name} is {other.dtype}; convert one, both need one dtype")
    if value.device != other.device:
        raise InputError(f"{name} is on {value.device} but {other_name} is on {other.device}; move both to one device")


def rank(name: str, value: torch.Tensor, ranks: Sequence[int], axes: str) -> None:
    """Check the number of axes of `value`.

    Raises:
        InputError: It is not in `ranks`; `axes` describes what is expected.
    """
    if value.ndim not in ranks:
        raise InputError(f"{name} has shape {tuple(value.shape)}; expected {axes}")


def shape(name: str, value: torch.Tensor, expected: Sequence[int], axes: str) -> None:
    """Check that `value` has exactly the shape `expected`.

    Raises:
        InputError: It has not; `axes` names the axes of the expected shape.
    """
    if tuple(value.shape) != tuple(expected):
        raise InputError(f"{name} has shape {tuple(value.shape)}; expected {tuple(expected)} = {axes}")


def writable(name: str, value: torch.Tensor) -> None:
    """Check that results may be accumulated into `value`: no gradient history, no overlapping memory.

    Raises:
        InputError: It requires grad, or is an expanded tensor whose elements share memory.
    """
    if value.requires_grad:
        raise InputError(f"{name} requires grad and cannot be written in place; pass {name}.detach()")
    if any(size > 1 and stride == 0 for size, stride in zip(value.shape, value.stride())):
        raise InputError(f"{name} is expanded (a stride is 0), its elements share memory; pass {name}.clone()")


def precision(value: str) -> None:
    """Check a precision name.

    Raises:
        InputError: It is none of "highest", "high", "medium".
    """
    if value not in PRECISIONS:
        raise InputError(f"precision={value!r} is unknown; use one of {', '.join(map(repr, PRECISIONS))}")
