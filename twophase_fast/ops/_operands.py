"""What the ops over positions share: their checks, the shapes of a Gram block, and its mirror image.

Vocabulary of these ops: N and M samples, C outputs per sample, T and S positions, d inputs and p outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch

from twophase_fast import _native, settings
from twophase_fast._types import InputError
from twophase_fast.ops import _checks, _cpu, _library
from twophase_fast.ops.gram.reference import result_dtype

GramOutput: TypeAlias = Literal["full", "trace", "diagonal"]

AXES = {"full": "[N, M, C, C']", "trace": "[N, M]", "diagonal": "[N, M, C]"}
"""Axes of a Gram block by output."""


def plain(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """Return an operand without its gradient history."""
    return None if tensor is None else _library.plain(tensor)


def operand(name: str, value: torch.Tensor, axes: str) -> None:
    """Check that an argument is a dense tensor with the axes named in `axes`, such as "N T d".

    Raises:
        InputError: It is no dense tensor, or has another number of axes.
    """
    names = axes.split()
    _checks.rank(name, _checks.tensor(name, value), (len(names),), f"[{', '.join(names)}]")


def same_size(what: str, left: tuple[str, int], right: tuple[str, int]) -> None:
    """Check that two operands agree on the size called `what`.

    Raises:
        InputError: The sizes differ.
    """
    if left[1] != right[1]:
        raise InputError(f"{left[0]} has {left[1]} {what} but {right[0]} has {right[1]}; they must agree")


def per_axis(name: str, value: int | Sequence[int], dims: int, least: int) -> tuple[int, ...]:
    """Return one number per spatial axis of a convolution.

    Raises:
        InputError: Neither one integer nor one per axis, or too small.
    """
    values = (value,) * dims if isinstance(value, int) else value
    fits = isinstance(values, Sequence) and len(values) == dims and all(isinstance(v, int) for v in values)
    if not fits or min(values) < least:
        raise InputError(f"{name}={value!r} must be one integer ≥ {least} or {dims} of them, one per spatial axis")
    return tuple(values)


def output_name(output: str) -> None:
    """Check the name of a Gram block's output.

    Raises:
        InputError: It is none of full, trace and diagonal.
    """
    if output not in AXES:
        raise InputError(f"output={output!r} is unknown; use one of {', '.join(map(repr, AXES))}")


def paired_classes(output: str, classes: int, classes2: int) -> None:
    """Check that both sides have equally many outputs per sample where these are paired.

    Raises:
        InputError: The numbers differ and `output` is trace or diagonal.
    """
    if output != "full" and classes != classes2:
        raise InputError(
            f"output={output!r} pairs the outputs of both sides, but g has C={classes} and g2 has C={classes2}; "
            "use output='full' or give both the same C"
        )


def both_or_neither(name: str, value: object, other_name: str, other: object) -> None:
    """Check that the two operands of the second side come together.

    Raises:
        InputError: Exactly one of them is None.
    """
    if (value is None) != (other is None):
        missing = name if value is None else other_name
        raise InputError(f"{missing} is missing; give both {name} and {other_name}, or neither for the symmetric case")


def gram_shape(output: str, g: torch.Tensor, g2: torch.Tensor | None) -> tuple[int, ...]:
    """Return the shape of a Gram block: full [N, M, C, C'], trace [N, M], diagonal [N, M, C]."""
    (n, classes), (m, classes2) = g.shape[:2], (g if g2 is None else g2).shape[:2]
    return {"full": (n, m, classes, classes2), "trace": (n, m), "diagonal": (n, m, classes)}[output]


def new_gram(
    output: str,
    g: torch.Tensor,
    g2: torch.Tensor | None,
    zeros: Callable[[Sequence[int], torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return zeros of a Gram block's shape and dtype (float32 for half precision), laid out as kernel matrices.

    In memory `full` is [N, C, M, C'], the matrix [N·C, M·C'], and `diagonal` is [C, N, M].

    Args:
        output: "full", "trace" or "diagonal".
        g: Cotangents [N, C, T, p].
        g2: Cotangents of the second side, or None.
        zeros: Makes zeros of a shape, like a tensor; by default torch does.
    """
    (n, classes), (m, classes2) = g.shape[:2], (g if g2 is None else g2).shape[:2]
    shape = {"full": (n, classes, m, classes2), "trace": (n, m), "diagonal": (classes, n, m)}[output]
    gram = g.new_zeros(shape, dtype=result_dtype(g.dtype)) if zeros is None else zeros(shape, g)
    return gram.permute({"full": (0, 2, 1, 3), "trace": (0, 1), "diagonal": (1, 2, 0)}[output])


def fake_gram(
    left: torch.Tensor, g: torch.Tensor, left2: torch.Tensor | None, g2: torch.Tensor | None, output: str, *_: object
) -> torch.Tensor:
    """Return a Gram block's stand-in while a graph is traced, given the arguments of an op that returns one."""
    return new_gram(output, g, g2)


def matrices(output: str, gram: torch.Tensor) -> torch.Tensor:
    """Return a Gram block of `new_gram` as the kernel matrices it is in memory: [N·C, M·C'], [N, M] or [C, N, M]."""
    if output == "trace":
        return gram
    if output == "diagonal":
        return gram.permute(2, 0, 1)
    n, m, classes, classes2 = gram.shape
    return gram.permute(0, 2, 1, 3).view(n * classes, m * classes2)


def check_like(name: str, value: torch.Tensor, shape: tuple[int, ...], axes: str, g: torch.Tensor) -> None:
    """Check that an argument has this shape, and the dtype and device of the cotangents g.

    Raises:
        InputError: It has not.
    """
    _checks.alike(name, _checks.tensor(name, value), "g", g)
    _checks.shape(name, value, shape, axes)


def writable(out: torch.Tensor, shape: tuple[int, ...], axes: str, like: tuple[str, torch.Tensor]) -> None:
    """Check a tensor that results are written or added to.

    Raises:
        InputError: Its shape, dtype or device is wrong, it requires a gradient, or its elements overlap in memory.
    """
    _checks.tensor("out", out)
    _checks.alike("out", out, *like)
    _checks.shape("out", out, shape, axes)
    _checks.writable("out", out)


def into_new(results: Callable[..., Any], write: Callable[..., None]) -> Callable[..., Any]:
    """Return a function that makes an op's results, has them written, and returns them.

    Args:
        results: Takes the op's arguments; returns a new tensor, or a tuple of new ones.
        write: Takes these tensors, then the op's arguments.
    """

    def run(*arguments: Any) -> Any:
        made = results(*arguments)
        write(*(made if isinstance(made, tuple) else (made,)), *arguments)
        return made

    return run


def sums_of(name: str, operand: torch.Tensor) -> tuple[str, torch.Tensor]:
    """Return what an accumulator must be like: its name in errors, and a tensor of the sums' dtype and device."""
    return f"the sum of products of {name} ({operand.dtype})", operand.new_empty(0, dtype=result_dtype(operand.dtype))


def cpu_refuses(*arguments: object, dtypes: Sequence[torch.dtype] = _checks.FLOATS) -> list[str]:
    """Return why the C++ kernels of these ops do not take the tensors among the arguments; empty if they do.

    Their scalar tier is an oracle, slower than plain torch, so it runs only where `TWOPHASE_ISA` asks for it.
    """
    reasons = _cpu.refuses(*arguments, dtypes=dtypes)
    if not reasons and _native.isa() == "scalar" and settings.isa() != "scalar":
        return [
            "this processor has only the scalar tier, which is slower than the reference; TWOPHASE_ISA=scalar forces it"
        ]
    return reasons
