"""Triton kernels of Gram blocks; a tile is BLOCK x BLOCK entries of the result, for part and chunk see `split.py`."""

import triton.language as tl

from twophase_fast.ops._triton.dot import dot
from twophase_fast.ops._triton.kernel import kernel
from twophase_fast.ops._triton.tiles import rectangle_tile, triangle_root, triangle_tile


@kernel
def with_inner_products(
    b_acc, x, y, x_offsets, y_offsets, x_step, y_step, count, DEPTH: tl.constexpr, MODE: tl.constexpr
):  # fmt: skip
    """Return b_acc + Σ_{p < count} x[:, p] y[:, p] for BLOCK rows of each.

    `x`, `y` point to the first of the terms; `x_offsets` [BLOCK, DEPTH], `y_offsets` [DEPTH, BLOCK] to a step's terms
    from there; `x_step`, `y_step` lead to the next step's.
    """
    o_depth = tl.arange(0, DEPTH)
    for p in range(0, count, DEPTH):
        m_depth = o_depth < count - p
        b_x = tl.load(x + x_offsets, mask=m_depth[None, :], other=0.0)
        b_y = tl.load(y + y_offsets, mask=m_depth[:, None], other=0.0)
        b_acc = dot(b_x, b_y, b_acc, MODE)
        x += x_step
        y += y_step
    return b_acc


@kernel
def offsets(o_row, o_col, row_stride, col_stride, WIDE: tl.constexpr):
    """Return row·row_stride + col·col_stride [rows, columns], in 64 bits if WIDE."""
    if WIDE:
        o_row, o_col = o_row.to(tl.int64), o_col.to(tl.int64)
    return o_row[:, None] * row_stride + o_col[None, :] * col_stride


@kernel
def add_tile(out, i_row, i_col, rows, columns, row_stride, col_stride, b_value, keep, WIDE: tl.constexpr):
    """Write b_value to the entries of `out` from (i_row, i_col), added to what is there if `keep`."""
    o_row = tl.arange(0, b_value.shape[0])
    o_col = tl.arange(0, b_value.shape[1])
    m_tile = (o_row < rows - i_row)[:, None] & (o_col < columns - i_col)[None, :]
    base = out + i_row.to(tl.int64) * row_stride + i_col.to(tl.int64) * col_stride
    # Clipped rows depend on the tile, which keeps the compiler from holding these offsets through the loop before.
    p_tile = base + offsets(tl.minimum(o_row, rows - 1 - i_row), o_col, row_stride, col_stride, WIDE)
    b_before = tl.load(p_tile, mask=m_tile & keep, other=0.0)
    tl.store(p_tile, b_before + b_value, mask=m_tile)


@kernel
def halves(b_value):
    """Return the left and the right half of the columns."""
    rows: tl.constexpr = b_value.shape[0]
    columns: tl.constexpr = b_value.shape[1]
    return tl.split(tl.permute(tl.reshape(b_value, (rows, 2, columns // 2)), (0, 2, 1)))


@kernel
def add_large_tile(out, i_row, i_col, rows, columns, row_stride, col_stride, b_value, keep, WIDE: tl.constexpr):
    """Do what `add_tile` does, 64 columns at a time: fewer addresses and old values in registers."""
    width: tl.constexpr = b_value.shape[1]
    if width > 64:
        b_left, b_right = halves(b_value)
        half: tl.constexpr = width // 2
        add_tile(out, i_row, i_col, rows, columns, row_stride, col_stride, b_left, keep, WIDE)
        add_tile(out, i_row, i_col + half, rows, columns, row_stride, col_stride, b_right, keep, WIDE)
    else:
        add_tile(out, i_row, i_col, rows, columns, row_stride, col_stride, b_value, keep, WIDE)


@kernel
def tile_of(t, row_tiles, col_tiles, TRIANGULAR: tl.constexpr):
    """Return row and column of tile t."""
    if TRIANGULAR:
        i_row, i_col = triangle_tile(t, row_tiles)
    else:
        i_row, i_col = rectangle_tile(t, row_tiles, col_tiles)
    return i_row, i_col


@kernel
def gram_kernel(
    x, y, out, partial,
    rows, columns, terms,
    x_batch, x_row, x_col, y_batch, y_row, y_col, out_batch, out_row, out_col,
    row_tiles, col_tiles, tiles, items, parts, chunks, chunk,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, MODE: tl.constexpr, ACC: tl.constexpr,
    TRIANGULAR: tl.constexpr, SPLIT: tl.constexpr, ACCUMULATE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Persistent: program i works through the items i, i + programs, ...; an item is (batch, tile, part).

    With SPLIT the sums of a part go to `partial` [items, BLOCK, BLOCK], else to `out`. WIDE: offsets within a tile or
    numbers of terms need more than 32 bits.
    """
    o_block = tl.arange(0, BLOCK)
    o_depth = tl.arange(0, DEPTH)
    programs = tl.num_programs(0)
    mine = (items - tl.program_id(0) + programs - 1) // programs
    for step in range(mine * chunks):  # one loop, not two: less is kept in registers
        item = tl.program_id(0) + (step // chunks) * programs
        i_part = item % parts
        i_tile = item // parts
        i_batch = (i_tile // tiles).to(tl.int64)
        i_row, i_col = tile_of(i_tile % tiles, row_tiles, col_tiles, TRIANGULAR)
        i_row, i_col = i_row * BLOCK, i_col * BLOCK
        i_chunk = i_part * chunks + step % chunks
        if WIDE:
            i_chunk = i_chunk.to(tl.int64)
        start = i_chunk * chunk
        count = tl.minimum(chunk, terms - start).to(tl.int32)
        x_tile = x + i_batch * x_batch + i_row.to(tl.int64) * x_row + start.to(tl.int64) * x_col
        y_tile = y + i_batch * y_batch + i_col.to(tl.int64) * y_row + start.to(tl.int64) * y_col
        b_acc = with_inner_products(
            tl.zeros((BLOCK, BLOCK), dtype=ACC), x_tile, y_tile,
            offsets(tl.minimum(o_block, rows - 1 - i_row), o_depth, x_row, x_col, WIDE),
            offsets(o_depth, tl.minimum(o_block, columns - 1 - i_col), y_col, y_row, WIDE),
            DEPTH * x_col, DEPTH * y_col, count, DEPTH, MODE,
        )  # fmt: skip
        later = step % chunks > 0
        if SPLIT:
            base = partial + item.to(tl.int64) * BLOCK * BLOCK
            add_large_tile(base, item * 0, item * 0, BLOCK, BLOCK, BLOCK, 1, b_acc, later, False)
        else:
            base = out + i_batch * out_batch
            add_large_tile(base, i_row, i_col, rows, columns, out_row, out_col, b_acc, later | ACCUMULATE, WIDE)


@kernel
def reduce_kernel(
    partial, out, rows, columns, out_batch, out_row, out_col, row_tiles, col_tiles, tiles, parts,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, ACC: tl.constexpr,
    TRIANGULAR: tl.constexpr, ACCUMULATE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Add the parts of every tile in their order; a program takes ROWS rows of a tile."""
    slices: tl.constexpr = BLOCK // ROWS
    i_tile = tl.program_id(0) // slices
    first = (tl.program_id(0) % slices) * ROWS
    p_part = partial + (i_tile.to(tl.int64) * parts * BLOCK + first) * BLOCK
    o_part = tl.arange(0, ROWS)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    b_sum = tl.zeros((ROWS, BLOCK), dtype=ACC)
    for _ in range(parts):
        b_sum += tl.load(p_part + o_part)
        p_part += BLOCK * BLOCK
    i_row, i_col = tile_of(i_tile % tiles, row_tiles, col_tiles, TRIANGULAR)
    base = out + (i_tile // tiles).to(tl.int64) * out_batch
    i_row, i_col = i_row * BLOCK + first, i_col * BLOCK
    add_tile(base, i_row, i_col, rows, columns, out_row, out_col, b_sum, ACCUMULATE, WIDE)


@kernel
def mirror_kernel(out, rows, out_batch, out_row, out_col, row_tiles, tiles, BLOCK: tl.constexpr):
    """Write the strictly upper triangle of each matrix to its lower one; one program per tile of the upper triangle."""
    i_tile = tl.program_id(0) % tiles
    i_col = triangle_root(i_tile)
    i_row = i_tile - i_col * (i_col + 1) // 2
    base = out + (tl.program_id(0) // tiles).to(tl.int64) * out_batch
    o_row = (i_row * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    o_col = (i_col * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    m_above = (o_row[:, None] < o_col[None, :]) & (o_col < rows)[None, :]
    b_tile = tl.load(base + o_row[:, None] * out_row + o_col[None, :] * out_col, mask=m_above, other=0.0)
    tl.store(base + o_col[None, :] * out_row + o_row[:, None] * out_col, b_tile, mask=m_above)
