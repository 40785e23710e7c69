"""How the tiles of a matrix are numbered, so that programs which run at the same time share rows and columns."""

import triton.language as tl

from twophase_fast.ops._triton.kernel import kernel

COLUMNS = tl.constexpr(8)
"""Columns of tiles that are worked through together; consecutive tiles then form a block about as wide as high."""


@kernel
def triangle_root(t):
    """Return the largest j with j(j+1)/2 ≤ t, for 0 ≤ t < 2³⁰."""
    j = ((tl.sqrt(8.0 * t.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int32)
    j = tl.where(j * (j + 1) // 2 > t, j - 1, j)
    return tl.where((j + 1) * (j + 2) // 2 <= t, j + 1, j)


@kernel
def triangle_tile(t, count):
    """Return row and column of tile t of the upper triangle of count x count tiles, diagonal included.

    Bands of `COLUMNS` columns from left to right; in a band first the rectangle above the diagonal, row by row, then
    the triangle. Before band s there are C(s) = c²·s(s−1)/2 + s·c(c+1)/2 tiles, c = COLUMNS.
    """
    c: tl.constexpr = COLUMNS
    # C(s) <= t is c²s² + cs <= 2t, so the triangle root of t / c² is s or s - 1.
    s = triangle_root(t // (c * c))
    s = tl.where(c * c * ((s + 1) * s // 2) + (s + 1) * (c * (c + 1) // 2) <= t, s + 1, s)
    r = t - (c * c * (s * (s - 1) // 2) + s * (c * (c + 1) // 2))
    left = s * c
    width = tl.minimum(c, count - left)
    above = left * width
    in_triangle = r >= above
    q = tl.maximum(r - above, 0)
    j = triangle_root(q)
    row = tl.where(in_triangle, left + q - j * (j + 1) // 2, r // width)
    column = left + tl.where(in_triangle, j, r % width)
    return row, column


@kernel
def rectangle_tile(t, rows, columns):
    """Return row and column of tile t of rows x columns tiles: bands of `COLUMNS` columns, row by row in a band."""
    band = t // (COLUMNS * rows)
    left = band * COLUMNS
    r = t - left * rows
    width = tl.minimum(COLUMNS, columns - left)
    return r // width, left + r % width
