"""Block sizes of `factored_gram` in Triton, and how the rows of a block are split into samples, classes and positions.

A program multiplies ROWS by COLUMNS rows over DEPTH terms at a time. A split costs p + d / (classes · classes') such
products per block, since classes share the terms over d, times what padding adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from itertools import product
from math import ceil
from typing import Literal, TypeAlias

import torch

from twophase_fast.ops._triton.launch import Launch, LaunchTable, launch
from twophase_fast.ops._triton.modes import MODES
from twophase_fast.ops.factored_gram import config
from twophase_fast.ops.factored_gram.config import Sizes

Trial: TypeAlias = Callable[[Launch], None]

FULL_GRID = 128
"""Programs that fill a GPU; below, smaller blocks are taken."""
SETUP = 24
"""Terms of depth that a block of positions costs besides its own."""
TILE_RATE = 0.5
"""Throughput of the fused products relative to those of `gram`, whose blocks are larger; estimated, not measured."""
JACOBIAN_BYTES = 1 << 26
"""Bytes of Jacobian per side that are held at a time where samples are materialised after all."""
JACOBIAN_INPUTS = 1 << 12
"""Most inputs of the layer in such a slice."""
LEAST_ROWS = 16
"""Rows that classes share at least: fewer do not fill a matrix instruction."""

_BLOCK = launch(ROWS=64, COLUMNS=64, DEPTH=16, num_warps=8, num_stages=3)
_SMALL = launch(ROWS=64, COLUMNS=32, DEPTH=16, num_warps=4, num_stages=2)
_SMALLEST = launch(ROWS=32, COLUMNS=32, DEPTH=16, num_warps=4, num_stages=2)
_DOUBLE = launch(ROWS=32, COLUMNS=32, DEPTH=16, num_warps=4, num_stages=3)
_DEEP = launch(ROWS=64, COLUMNS=64, DEPTH=32, num_warps=8, num_stages=3)
_DEEP_SMALL = launch(ROWS=64, COLUMNS=32, DEPTH=32, num_warps=4, num_stages=3)
_DEEP_SERIAL = launch(ROWS=64, COLUMNS=64, DEPTH=32, num_warps=8, num_stages=1)
_ALIGNMENTS, _SIZES = ("aligned", "any"), ("large", "small")

LAUNCHES = LaunchTable(
    op="factored_gram",
    rows={
        ("ieee", "float32", "aligned", "large"): (_BLOCK, _SMALLEST),
        ("ieee", "float32", "aligned", "small"): (_SMALLEST, _BLOCK),
        **{("ieee", "float64", *rest): (_DOUBLE,) for rest in product(_ALIGNMENTS, _SIZES)},
        ("tf32x3", "float32", "aligned", "large"): (_BLOCK, _SMALL),
        ("tf32x3", "float32", "aligned", "small"): (_SMALL, _BLOCK),
        ("tf32", "float32", "aligned", "large"): (_DEEP, _DEEP_SMALL),
        ("tf32", "float32", "aligned", "small"): (_DEEP_SMALL, _DEEP),
        ("ieee", "half", "aligned", "large"): (_DEEP, _DEEP_SMALL),
        ("ieee", "half", "aligned", "small"): (_DEEP_SMALL, _DEEP),
        ("ieee", "half", "any", "large"): (_BLOCK, _SMALL),
        ("ieee", "half", "any", "small"): (_SMALL, _BLOCK),
        **{("bf16x3", "float32", "aligned", size): (_DEEP_SERIAL,) for size in _SIZES},
        **{(mode, "float32", "any", "large"): (_BLOCK, _SMALL) for mode in MODES},
        **{(mode, "float32", "any", "small"): (_SMALL, _BLOCK) for mode in MODES},
    },
    interpreted=launch(ROWS=16, COLUMNS=16, DEPTH=16),
)
"""Key: mode, dtype ("half" for bfloat16 and float16), whether rows start and end at
multiples of 16 elements, whether large blocks fill the GPU."""


@dataclass(frozen=True)
class Split:
    """Classes and positions of both sides in a block; its samples are the rows over their product.

    Attributes:
        classes: Of the rows; 1 unless output="full".
        classes2: Of the columns.
        positions: Of the rows.
        positions2: Of the columns.
    """

    classes: int
    classes2: int
    positions: int
    positions2: int

    def arguments(self) -> dict[str, int]:
        """Return the kernel's constants."""
        names = ("CLASSES", "CLASSES2", "POSITIONS", "POSITIONS2")
        return dict(zip(names, astuple(self), strict=True))

    def samples(self, chosen: Launch) -> tuple[int, int]:
        """Return the samples of both sides in a block."""
        return (
            chosen["ROWS"] // (self.classes * self.positions),
            chosen["COLUMNS"] // (self.classes2 * self.positions2),
        )


def method(sizes: Sizes, output: str) -> Literal["fused", "materialised"]:
    """Return the method with the least predicted time; one position is always fused."""
    fused = config.tiles_cost(sizes, output) / TILE_RATE
    return "materialised" if config.materialised_cost(sizes, output) < fused else "fused"


@lru_cache(maxsize=4096)
def split(sizes: Sizes, output: str, rows: int, columns: int) -> Split:
    """Return the split of a block of rows x columns with the least cost."""
    left = _side_splits(rows, sizes.positions, sizes.classes if output == "full" else 1)
    right = _side_splits(columns, sizes.positions2, sizes.classes2 if output == "full" else 1)
    candidates = [Split(c, c2, t, t2) for (c, t), (c2, t2) in product(left, right)]
    return min(candidates, key=lambda s: _cost(sizes, s, rows, columns))


def choose(
    table: LaunchTable, mode: str, operands: Sequence[torch.Tensor], sizes: Sizes, output: str, trial: Trial
) -> Launch:
    """Return the launch configuration of a call.

    Args:
        table: `LAUNCHES`, or another op's table with the same keys.
        mode: Precision mode.
        operands: The operands whose rows are multiplied.
        sizes: Sizes of both sides.
        output: "full", "trace" or "diagonal".
        trial: Runs the call into scratch memory.
    """
    name = str(operands[0].dtype).removeprefix("torch.")
    kind = name if name in ("float32", "float64") else "half"
    key = mode, kind, "aligned" if all(map(_aligned, operands)) else "any"
    large = table.rows[*key, "large"][0]
    parts = split(sizes, output, large["ROWS"], large["COLUMNS"])
    size = "large" if programs(sizes, output, parts, large) >= FULL_GRID else "small"
    return table.choose((*key, size), astuple(sizes), operands[0].device, trial)


def _aligned(operand: torch.Tensor) -> bool:
    *strides, last = operand.stride()
    multiples = (operand.shape[-1], *strides, operand.data_ptr() // operand.element_size())
    return last == 1 and not any(multiple % 16 for multiple in multiples)


def programs(sizes: Sizes, output: str, parts: Split, chosen: Launch) -> int:
    """Return the number of programs of a launch."""
    n, m = parts.samples(chosen)
    pairs = ceil(sizes.classes / parts.classes) * ceil(sizes.classes2 / parts.classes2)
    classes = {"full": pairs, "trace": 1, "diagonal": sizes.classes}[output]
    return ceil(sizes.samples / n) * ceil(sizes.samples2 / m) * classes


def _side_splits(rows: int, positions: int, classes: int) -> Iterator[tuple[int, int]]:
    """Yield (classes, positions) of a block: powers of two, not more than needed, and at most `rows` in all."""
    of_classes = [c for c in _powers(max(1, rows // LEAST_ROWS)) if c < 2 * classes]
    of_positions = [t for t in _powers(rows) if t < 2 * positions]
    yield from ((c, t) for c, t in product(of_classes, of_positions) if c * t <= rows)


def _powers(limit: int) -> list[int]:
    return [1 << i for i in range(limit.bit_length()) if 1 << i <= limit]


def _cost(sizes: Sizes, parts: Split, rows: int, columns: int) -> float:
    n, m = rows // (parts.classes * parts.positions), columns // (parts.classes2 * parts.positions2)
    padded = _padded(sizes.samples, n) * _padded(sizes.samples2, m)
    padded *= _padded(sizes.classes, parts.classes) * _padded(sizes.classes2, parts.classes2)
    padded *= _padded(sizes.positions, parts.positions) * _padded(sizes.positions2, parts.positions2)
    return padded * (sizes.outputs + sizes.inputs / (parts.classes * parts.classes2) + SETUP)


def _padded(size: int, block: int) -> int:
    return ceil(size / block) * block
