"""Method `materialised`: Jacobians after all, a slice of outputs at a time, where many samples share their cost."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Side = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Kernels:
    """What a backend gives to this method.

    Attributes:
        gram_: Adds the Gram block of two matrices, as `ops.gram_` without `backend`.
        per_sample_grad_out: Writes Jacobians, as `torch.ops.twophase_fast.per_sample_grad_out` without `backend`.
        jacobian: Bytes of Jacobian per side that are held at a time (one output at least).
        inputs: Inputs of a slice at most.
    """

    gram_: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, str], None]
    per_sample_grad_out: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, str], None]
    jacobian: int
    inputs: int


def add(
    out: torch.Tensor, left: Side, right: Side | None, output: str, kernels: Kernels, precision: str = "highest"
) -> None:
    """Add the Gram block of (a, g) with (a2, g2) to `out`; with None the upper triangle of the symmetric one."""
    with matrices_of(out, output) as rows:
        for x, y in _slices(left, right, output, kernels, precision):
            kernels.gram_(rows, x, y, precision)


@contextmanager
def matrices_of(out: torch.Tensor, output: str) -> Iterator[torch.Tensor]:
    """Give `out` as the matrices `gram_` adds to, by way of a copy where its strides do not merge.

    Yields:
        `[N·C, M·C']` for full, `[N, M]` for trace, `[C, N, M]` for diagonal.
    """
    axes = {"full": (0, 2, 1, 3), "trace": (0, 1), "diagonal": (2, 0, 1)}[output]
    permuted = out.permute(axes)
    rows = permuted.flatten(0, 1).flatten(1) if output == "full" else permuted
    yield rows
    if rows.data_ptr() != out.data_ptr():
        permuted.copy_(rows.view(permuted.shape))


def _slices(
    left: Side, right: Side | None, output: str, kernels: Kernels, precision: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Yield matching operands of `gram_`, some entries (output, input) at a time; the next ones overwrite them.

    A slice spans many inputs and outputs, so that what is packed to build it is used many times.
    """
    (samples, classes, _, outputs), inputs = left[1].shape, left[0].shape[2]
    columns = min(inputs, kernels.inputs)
    per_output = samples * classes * columns * left[0].element_size()
    rows = min(outputs, max(1, kernels.jacobian // max(per_output, 1)))
    sides = [left] if right is None else [left, right]
    buffers = [_buffer(side, rows * columns) for side in sides]
    for j, i in itertools.product(range(0, inputs, max(columns, 1)), range(0, outputs, max(rows, 1))):
        pieces = [(a[..., j : j + columns], g[..., i : i + rows]) for a, g in sides]
        operands = [
            _operand(piece, buffer, output, kernels, precision) for piece, buffer in zip(pieces, buffers, strict=True)
        ]
        yield operands[0], None if right is None else operands[1]


def _buffer(side: Side, entries: int) -> torch.Tensor:
    """Return memory for the Jacobian with respect to that many entries of the weight."""
    samples, classes = side[1].shape[:2]
    return side[0].new_empty(samples * classes * entries)


def _operand(side: Side, buffer: torch.Tensor, output: str, kernels: Kernels, precision: str) -> torch.Tensor:
    """Fill the buffer with a Jacobian and return it in the layout that `gram_` takes."""
    a, g = side
    samples, classes, _, outputs = g.shape
    shape = (samples, classes, outputs, a.shape[2])
    jacobian = buffer[: torch.Size(shape).numel()].view(shape)
    kernels.per_sample_grad_out(jacobian, a, g, precision)
    if output == "full":
        return jacobian.flatten(2).flatten(0, 1)
    return jacobian.flatten(1) if output == "trace" else jacobian.flatten(2).transpose(0, 1)
