"""Checks shared by the ops that take inputs and cotangents over positions.

Vocabulary of these ops: N and M samples, C outputs per sample, T and S positions, d inputs and p outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch

from twophase_fast._types import InputError

GramOutput: TypeAlias = Literal["full", "trace", "diagonal"]

OUTPUTS = ("full", "trace", "diagonal")
DTYPES = (torch.float32, torch.float64)


def describe(tensor: torch.Tensor) -> str:
    """Return shape, dtype and device of a tensor for an error message."""
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"


def check_tensor(op: str, name: str, value: torch.Tensor, axes: str) -> None:
    """Check that an argument is a tensor with the axes named in `axes`, such as "N T d".

    Raises:
        InputError: It is no tensor, or has another number of axes.
    """
    if not isinstance(value, torch.Tensor):
        raise InputError(f"{op}: {name} must be a tensor [{axes}], got {type(value).__name__}")
    if value.dim() != len(axes.split()):
        raise InputError(f"{op}: {name} must have the axes [{axes}], got {describe(value)}; reshape it first")


def check_same(op: str, like: tuple[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    """Check that all operands are float32 or all float64, on one device.

    Raises:
        InputError: The first operand has another dtype, or another operand differs from it.
    """
    name, first = like
    if first.dtype not in DTYPES:
        raise InputError(
            f"{op}: {name} must be float32 or float64, got {describe(first)}; convert it with .to()"
        )
    for other, tensor in others.items():
        if tensor.dtype != first.dtype or tensor.device != first.device:
            raise InputError(
                f"{op}: {other} is {describe(tensor)} but {name} is {describe(first)}; "
                "give all operands one dtype and one device"
            )


def check_sizes(op: str, what: str, left: tuple[str, int], right: tuple[str, int]) -> None:
    """Check that two operands agree on the size called `what`.

    Raises:
        InputError: The sizes differ.
    """
    if left[1] != right[1]:
        raise InputError(
            f"{op}: {left[0]} has {left[1]} {what} but {right[0]} has {right[1]}; they must agree"
        )


def check_output(op: str, output: str) -> None:
    """Check the name of a Gram block's output.

    Raises:
        InputError: It is none of full, trace and diagonal.
    """
    if output not in OUTPUTS:
        raise InputError(f"{op}: output={output!r} is not one of {', '.join(OUTPUTS)}")


def check_classes(op: str, output: str, classes: int, classes2: int) -> None:
    """Check that both sides have equally many outputs per sample where classes are paired.

    Raises:
        InputError: The numbers differ and `output` is trace or diagonal.
    """
    if output != "full" and classes != classes2:
        raise InputError(
            f"{op}: output={output!r} pairs the outputs of both sides, but g has C={classes} and g2 has "
            f"C={classes2}; use output='full' or give both the same C"
        )


def gram_shape(output: str, n: int, m: int, classes: int, classes2: int) -> tuple[int, ...]:
    """Return the shape of a Gram block: full [N, M, C, C'], trace [N, M], diagonal [N, M, C]."""
    return {"full": (n, m, classes, classes2), "trace": (n, m), "diagonal": (n, m, classes)}[output]


def new_gram(like: torch.Tensor, output: str, shape: Sequence[int]) -> torch.Tensor:
    """Return zeros of a Gram block's shape; `full` has the memory layout [N, C, M, C'] of a kernel matrix."""
    if output != "full":
        return like.new_zeros(tuple(shape))
    n, m, classes, classes2 = shape
    return like.new_zeros(n, classes, m, classes2).permute(0, 2, 1, 3)


def check_out(op: str, out: torch.Tensor, shape: Sequence[int], like: tuple[str, torch.Tensor]) -> None:
    """Check a tensor that results are written or added to.

    Raises:
        InputError: Its shape, dtype or device is wrong, it requires a gradient, or its elements overlap in memory.
    """
    if not isinstance(out, torch.Tensor) or tuple(out.shape) != tuple(shape):
        given = describe(out) if isinstance(out, torch.Tensor) else type(out).__name__
        raise InputError(f"{op}: out must be a tensor of shape {list(shape)}, got {given}")
    check_same(op, like, {"out": out})
    if out.requires_grad:
        raise InputError(
            f"{op}: out requires a gradient, which an op that writes in place cannot give; detach it"
        )
    if any(step == 0 and size > 1 for size, step in zip(out.shape, out.stride(), strict=True)):
        raise InputError(
            f"{op}: out is expanded (elements share memory); give it memory of its own with .clone()"
        )


def mirror_(out: torch.Tensor, output: str) -> None:
    """Copy the strictly upper entries of a symmetric Gram block to the lower ones: entry (n,c),(m,c') to (m,c'),(n,c)."""
    n = out.shape[0]
    if output == "full":
        classes = out.shape[2]
        matrix = out.permute(0, 2, 1, 3).reshape(n * classes, n * classes)
        out.copy_((matrix.triu() + matrix.triu(1).T).view(n, classes, n, classes).permute(0, 2, 1, 3))
        return
    matrix = out.reshape(n, n, -1).permute(2, 0, 1)
    out.copy_((matrix.triu() + matrix.triu(1).mT).permute(1, 2, 0).reshape(out.shape))
