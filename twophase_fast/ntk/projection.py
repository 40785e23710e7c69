"""Multiplying a factor's Jacobian by random signs: J R with R [P, D], neither of which ever exists as a whole.

J is materialised in bands of the parameter's rows, R in cells that are a function of (seed, parameter, position in the
parameter): every tile, every side and every memory budget sees the same R.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from twophase_fast import ops
from twophase_fast.ntk.signs import random_signs
from twophase_fast.rules.factors import Conv, Dense, Factor, Outer

CELL = 2**18  # signs of R that exist at a time


@dataclass(frozen=True)
class Grid:
    """The cells of R for one parameter, as a matrix [rows, columns]; a function of its shape and D alone."""

    rows: int
    columns: int
    height: int
    width: int

    @classmethod
    def of(cls, shape: torch.Size, directions: int) -> Grid:
        """Return the grid for a parameter of `shape`: whole rows where they fit, else pieces of one row."""
        rows = shape[0] if len(shape) > 1 else 1
        columns = shape.numel() // rows
        cell = max(1, CELL // directions)
        return cls(rows, columns, max(1, cell // columns), min(columns, cell))

    def cells(self, band: slice) -> Iterator[tuple[slice, slice]]:
        """Yield (rows, columns) of the cells in a band of rows that starts at a cell."""
        for top in range(band.start, band.stop, self.height):
            for left in range(0, self.columns, self.width):
                yield slice(top, min(top + self.height, band.stop)), slice(left, min(left + self.width, self.columns))


@dataclass(frozen=True)
class Projection:
    """Multiplies Jacobians by R.

    Attributes:
        seed: Decides R.
        directions: D.
        slice_bytes: Largest band of a materialised Jacobian.
    """

    seed: int
    directions: int
    slice_bytes: int

    def __call__(self, name: str, shape: torch.Size, factor: Factor) -> torch.Tensor:
        """Return J R [N, K, D] for the factor of the parameter `name` of `shape`."""
        grid = Grid.of(shape, self.directions)
        parts = _like(factor)
        sketch = parts.new_zeros(parts.shape[0] * parts.shape[1], self.directions)
        for band, jacobian in _bands(factor, grid, self.slice_bytes):
            for rows, columns in grid.cells(band):
                piece = jacobian[:, :, rows.start - band.start : rows.stop - band.start, columns]
                piece = piece.reshape(len(sketch), -1)
                key = self.seed, name, rows.start, columns.start
                sketch.addmm_(piece, random_signs(key, piece.shape[1], self.directions, like=sketch))
        return sketch.view(*parts.shape[:2], self.directions)


def _like(factor: Factor) -> torch.Tensor:
    """Return a Tensor [N, K, ...] of a factor."""
    return factor.jacobian if isinstance(factor, Dense) else factor.g


def _bands(factor: Factor, grid: Grid, limit: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield (rows, J[:, :, rows] as [N, K, rows, columns]) in bands of at most `limit` bytes, whole cells each."""
    like = _like(factor)
    row_bytes = like.shape[0] * like.shape[1] * grid.columns * like.element_size()
    step = grid.height * max(1, limit // (grid.height * row_bytes))
    cut = _cutter(factor, grid)
    for start in range(0, grid.rows, step):
        band = slice(start, min(start + step, grid.rows))
        yield band, cut(band).reshape(*like.shape[:2], band.stop - band.start, grid.columns)


def _cutter(factor: Factor, grid: Grid) -> Callable[[slice], torch.Tensor]:
    """Return a function from rows of the parameter to that part of its Jacobian."""
    if isinstance(factor, Outer) and not factor.transposed and factor.g.shape[3] == grid.rows:
        return lambda band: ops.per_sample_grad(factor.a, factor.g[..., band])
    if isinstance(factor, Outer) and factor.transposed and factor.a.shape[2] == grid.rows:
        return lambda band: ops.per_sample_grad(factor.a[..., band], factor.g).transpose(2, 3)
    if isinstance(factor, Conv) and factor.groups == 1:
        return lambda band: factor.dense(band)
    whole = factor.dense()
    matrix = whole.reshape(*whole.shape[:2], grid.rows, grid.columns)
    return lambda band: matrix[:, :, band]
