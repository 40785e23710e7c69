"""What a row of the table of ops says, and helpers to write one; the rows are in `_cases.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from twophase_fast.ops._checks import FLOATS

ODD_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97)
"""Sizes around lane widths and micro-tiles."""

Sizes = dict[str, int]
Inputs = dict[str, Any]


def _itself(result: Any) -> list[torch.Tensor]:
    return [result]


def _in_order(inputs: Inputs) -> tuple[Any, ...]:
    return tuple(inputs.values())


@dataclass(frozen=True, eq=False)
class OpCase:
    """One op.

    Attributes:
        name: Name in `torch.ops.twophase_fast`.
        call: The public function; takes the inputs and `backend` as keywords.
        sizes: Sets of sizes to test, small ones first.
        make: Makes the inputs from sizes, dtype and a seeded generator, in the order of the op's schema. An input
            named `out` is accumulated into.
        dtypes: Element types the op takes.
        values: The numbers in a result, as tensors whose errors are measured relative to their Frobenius norms.
        operands: The op's positional arguments, without `backend`, from the inputs.
        truth: The values in higher precision than the result's; by default the reference backend in float64.
        same_for_all_threads: Whether the result is bitwise the same for any number of threads.
    """

    name: str
    call: Callable[..., Any]
    sizes: Sequence[Sizes]
    make: Callable[[Sizes, torch.dtype, torch.Generator], Inputs]
    dtypes: Sequence[torch.dtype] = FLOATS
    values: Callable[[Any], list[torch.Tensor]] = _itself
    operands: Callable[[Inputs], tuple[Any, ...]] = _in_order
    truth: Callable[[Inputs], list[torch.Tensor]] | None = None
    same_for_all_threads: bool = True

    def __str__(self) -> str:
        return self.name

    def inputs(self, sizes: Sizes, dtype: torch.dtype) -> Inputs:
        """Return the inputs of these sizes; the same ones every time."""
        generator = torch.Generator().manual_seed(sum((i + 1) * size for i, size in enumerate(sizes.values())))
        return self.make(sizes, dtype, generator)


def random(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Return standard normal numbers, drawn in float64 and rounded to `dtype`."""
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def poison_lower(matrix: torch.Tensor) -> torch.Tensor:
    """Fill the strictly lower triangle, which no op may read, with NaN."""
    return matrix.masked_fill_(torch.ones_like(matrix, dtype=torch.bool).tril(-1), torch.nan)
