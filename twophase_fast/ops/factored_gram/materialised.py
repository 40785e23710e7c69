"""Method `materialised`: Jacobians after all, a slice of outputs at a time, where many samples share their cost."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from twophase_fast.ops.gram import cpu as gram_cpu
from twophase_fast.ops.per_sample_grad import cpu as grad_cpu

Side = tuple[torch.Tensor, torch.Tensor]


def add(out: torch.Tensor, left: Side, right: Side | None, output: str, slice_bytes: int) -> None:
    """Add the Gram block of (a, g) with (a2, g2) to `out`; with None the upper triangle of the symmetric one."""
    axes = {"full": (0, 2, 1, 3), "trace": (0, 1), "diagonal": (2, 0, 1)}[output]
    permuted = out.permute(axes)
    rows = permuted.flatten(0, 1).flatten(1) if output == "full" else permuted  # a copy where strides do not merge
    for x, y in _slices(left, right, output, slice_bytes):
        gram_cpu.gram_(rows, x, y, "highest")
    if rows.data_ptr() != out.data_ptr():
        permuted.copy_(rows.view(permuted.shape))


def _slices(
    left: Side, right: Side | None, output: str, slice_bytes: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Yield matching operands of `gram_`, a slice of outputs at a time."""
    step = max(1, slice_bytes // max(_output_bytes(left), 1))
    for first in range(0, left[1].shape[3], step):
        outputs = slice(first, first + step)
        yield _operand(left, outputs, output), None if right is None else _operand(right, outputs, output)


def _output_bytes(side: Side) -> int:
    """Return the bytes of the Jacobian of one output."""
    (samples, classes), inputs = side[1].shape[:2], side[0].shape[2]
    return samples * classes * inputs * side[0].element_size()


def _operand(side: Side, outputs: slice, output: str) -> torch.Tensor:
    """Return a Jacobian slice in the layout that `gram_` takes."""
    jacobian = grad_cpu.per_sample_grad(side[0], side[1][..., outputs]).flatten(2)
    if output == "full":
        return jacobian.flatten(0, 1)
    return jacobian.flatten(1) if output == "trace" else jacobian.transpose(0, 1)
