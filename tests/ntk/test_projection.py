"""Projections of factors: the same signs whatever form a Jacobian takes and however it is cut."""

import pytest
import torch

from tests.ntk.helpers import x
from twophase_fast.ntk.projection import CELL, Grid, Projection
from twophase_fast.rules.factors import Conv, Dense, Lookup, Outer


def _conv(groups):
    return Conv(x(3, 4, 6, 6), x(3, 2, 6, 6, 6), (3, 3), (1, 1), (1, 1), (1, 1), groups)


FACTORS = {
    "outer": Outer(x(3, 5, 7), x(3, 2, 5, 4), torch.Size((4, 7))),
    "outer transposed": Outer(x(3, 5, 7), x(3, 2, 5, 4), torch.Size((7, 4)), transposed=True),
    "outer of a reshaped parameter": Outer(x(3, 5, 7), x(3, 2, 5, 4), torch.Size((2, 14))),
    "conv": _conv(1),
    "conv with groups": _conv(2),
    "lookup": Lookup(torch.tensor([[0, 3, 9], [1, 1, 2], [8, 0, 0]]), x(3, 2, 3, 4), torch.Size((9, 4))),
    "dense vector": Dense(x(3, 2, 11)),
    "dense scalar": Dense(x(3, 2)),
}


def _shape(factor):
    return factor.jacobian.shape[2:] if isinstance(factor, Dense) else factor.shape


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("slice_bytes", [1, 2000, 10**9])
def test_every_form_sees_the_same_signs(name, slice_bytes):
    factor = FACTORS[name]
    shape = _shape(factor)
    numel = shape.numel()
    rows = torch.eye(numel, dtype=torch.float64).view(1, numel, *shape)
    signs = Projection(0, 6, 10**9)("w", shape, Dense(rows))[0]  # R [P, D]
    assert bool((signs.abs() == 1).all())
    sketch = Projection(0, 6, slice_bytes)("w", shape, factor)
    torch.testing.assert_close(sketch, factor.dense().reshape(3, 2, numel) @ signs)


def test_cells_cover_every_entry_once():
    for shape, directions in (((5, 7), CELL // 3), ((300, 2), 4096), ((4, CELL), 4), ((10,), 3), ((), 2)):
        grid = Grid.of(torch.Size(shape), directions)
        assert grid.height * grid.width * directions <= CELL or grid.height * grid.width == 1
        seen = torch.zeros(grid.rows, grid.columns)
        for rows, columns in grid.cells(slice(0, grid.rows)):
            seen[rows, columns] += 1
        assert bool((seen == 1).all())


def test_cut_cells_are_projected_once():
    shape, directions = torch.Size((3, 5)), CELL // 2  # two entries of a row per cell
    ones = Projection(1, directions, 1)("w", shape, Dense(torch.ones(1, 1, 3, 5)))
    rows = torch.eye(15).view(1, 15, 3, 5)
    torch.testing.assert_close(ones[0, 0], Projection(1, directions, 1)("w", shape, Dense(rows))[0].sum(0))
