"""Which method `factored_gram` takes in C++, and its block sizes; measured on Zen 4 with 2 cores, AVX2, float32.

FLOPs per pair of samples (a multiply-add is two):

| method | full | trace, diagonal |
|---|---|---|
| tiles | 2TS(d + C·C'·p) | 2TS(d + C·p) |
| half | 2TS(d + C'·p) + 2T·p·C·C' | - |
| pointwise (T = S = 1) | 2(d + C·C'·p) | - |
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal, TypeAlias

Method: TypeAlias = Literal["tiles", "pointwise", "half"]

DOT_RATE = 0.6
"""Throughput of the dot products <g, H> of `half`, relative to its matrix products."""


@dataclass(frozen=True)
class Blocks:
    """Sizes of cache blocks.

    Attributes:
        rows: Positions (for `pointwise`: classes times samples) per side of a block.
        columns: Columns of H that `half` holds at once.
        depth: Terms summed in registers before they are added to a block.
        workspace: Elements of packed operands per side, before samples are cut into groups.
    """

    rows: int = 96
    columns: int = 1024
    depth: int = 256
    workspace: int = 1 << 24

    def as_list(self) -> list[int]:
        """Return the sizes in the order of `FactoredBlocks` in csrc/factored_gram/factored_gram.h."""
        return list(astuple(self))


@dataclass(frozen=True)
class Sizes:
    """Sizes of one call: positions T and S, classes C and C', inputs d, outputs p."""

    positions: int
    positions2: int
    classes: int
    classes2: int
    inputs: int
    outputs: int


def method(sizes: Sizes, output: str) -> Method:
    """Return the method with the fewest FLOPs, those of dot products weighted by their lower rate."""
    if output != "full":
        return "tiles"
    if sizes.positions == sizes.positions2 == 1:
        return "pointwise"
    return "half" if _half_cost(sizes) < _tiles_cost(sizes) else "tiles"


def blocks(sizes: Sizes) -> Blocks:
    """Return the block sizes of a call."""
    return Blocks()


def _tiles_cost(s: Sizes) -> float:
    return 2 * s.positions * s.positions2 * (s.inputs + s.classes * s.classes2 * s.outputs)


def _half_cost(s: Sizes) -> float:
    products = 2 * s.positions * s.positions2 * (s.inputs + s.classes2 * s.outputs)
    return products + 2 * s.positions * s.outputs * s.classes * s.classes2 / DOT_RATE
