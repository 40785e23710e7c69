"""Which method `factored_gram` takes in C++, and its block sizes; measured on Zen 4 (AVX2, AVX-512), float32.

FLOPs per pair of samples (a multiply-add is two), and relative throughput:

| method | full | trace, diagonal | rate |
|---|---|---|---|
| pointwise (T = S = 1) | 2(d + C·C'·p) | - | 1 |
| single (T = S = 1), on split operands only | 2(d + C·C'·p) | 2(d + C·p) | 3 |
| tiles | 2TS(d + C·C'·p) | 2TS(d + C·p) | 1 |
| split: tiles on split operands | 2TS(d + C·C'·p) | 2TS(d + C·p) | 2 |
| half | 2TS(d + C'·p) + 2T·p·C·C' | - | 1; 0.7 for the second term |
| materialised | 2pd·C·C' + building | 2pd·C + building | 0.9 (2.7 on split operands); 0.7 for building |

Split operands (precision "high" on AMX): the rates rest on a trial of `gram` on Sapphire Rapids, not on these kernels.

Building the Jacobians takes 2pd·T·C per sample and side; it pays where many partners share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Method: TypeAlias = Literal["tiles", "pointwise", "single", "split", "half", "materialised"]

DOT_RATE = 0.7
"""Throughput of the dot products <g, H> of `half`, relative to its matrix products."""
GRAM_RATE = 0.9
"""Throughput of the Gram product of materialised Jacobians, likewise."""
SPLIT_RATE = 3.0
"""Throughput of Gram products of split operands on a matrix unit, relative to float32 without them."""
SPLIT_TILES_RATE = 2.0
"""Throughput of `split`, whose entry-by-entry products are float32 as ever, likewise."""
BUILD_RATE = 0.7
"""Throughput of building Jacobians, likewise."""


@dataclass(frozen=True)
class Blocks:
    """Sizes of cache blocks.

    Attributes:
        rows: Positions (for `pointwise`: classes times samples) per side of a block.
        columns: Columns of H that `half` holds at once.
        depth: Terms summed in registers before they are added to a block; longer sums lose accuracy.
        workspace: Elements of packed operands per side, before samples are cut into groups.
        jacobian: Bytes of Jacobian that `materialised` holds at a time (one output at least), to fit a cache.
    """

    rows: int = 192
    columns: int = 1024
    depth: int = 128
    workspace: int = 1 << 22
    jacobian: int = 1 << 22

    def as_list(self) -> list[int]:
        """Return the sizes in the order of `FactoredBlocks` in csrc/factored_gram/factored_gram.h."""
        return [self.rows, self.columns, self.depth, self.workspace]


_POINTWISE = Blocks(rows=320)  # its blocks hold one sum where those of `tiles` hold two, and fit L2 with their operands


def blocks(method: Method) -> Blocks:
    """Return the block sizes of a method."""
    return _POINTWISE if method == "pointwise" else Blocks()


@dataclass(frozen=True)
class Sizes:
    """Sizes of one call: samples N and M, positions T and S, classes C and C', inputs d, outputs p."""

    samples: int
    samples2: int
    positions: int
    positions2: int
    classes: int
    classes2: int
    inputs: int
    outputs: int


def method(sizes: Sizes, output: str, *, split: bool = False) -> Method:
    """Return the method with the least predicted time; `split`: Gram products may split their operands."""
    if sizes.positions == sizes.positions2 == 1 and (split or output == "full"):
        return "single" if split else "pointwise"
    tiles = tiles_cost(sizes, output)
    costs: dict[Method, float] = {
        **({"split": tiles / SPLIT_TILES_RATE} if split else {"tiles": tiles}),
        "materialised": materialised_cost(sizes, output, GRAM_RATE * (SPLIT_RATE if split else 1)),
    }
    if output == "full":
        costs["half"] = _half(sizes)
    return min(costs, key=costs.__getitem__)


def _class_products(s: Sizes, output: str) -> int:
    return s.classes * s.classes2 if output == "full" else s.classes


def tiles_cost(s: Sizes, output: str) -> float:
    """Return the cost of `tiles` per pair of samples, in FLOPs at the rate of 1."""
    return 2 * s.positions * s.positions2 * (s.inputs + _class_products(s, output) * s.outputs)


def _half(s: Sizes) -> float:
    products = 2 * s.positions * s.positions2 * (s.inputs + s.classes2 * s.outputs)
    return products + 2 * s.positions * s.outputs * s.classes * s.classes2 / DOT_RATE


def materialised_cost(s: Sizes, output: str, gram_rate: float = GRAM_RATE) -> float:
    """Return the cost of `materialised`, likewise."""
    weights = 2 * s.outputs * s.inputs
    partners = max(s.samples, 1), max(s.samples2, 1)  # those who share the left, and the right Jacobian
    build = s.positions * s.classes / partners[1] + s.positions2 * s.classes2 / partners[0]
    return weights * (_class_products(s, output) / gram_rate + build / BUILD_RATE)
