"""The Triton kernel of grouped Gram blocks: `gram_kernel` with its operands in a table and its sums in a schedule."""

import triton.language as tl

from twophase_fast.ops._triton.kernel import kernel
from twophase_fast.ops.gram.kernels import add_large_tile, offsets, tile_of, with_inner_products

ENTRIES = tl.constexpr(6)
"""Numbers per segment in the table: the addresses of x and y, row strides of x and y, column strides of x and y."""


@kernel
def operand(table, i_segment, SIDE: tl.constexpr, DTYPE: tl.constexpr, VECTOR: tl.constexpr, WIDE: tl.constexpr):
    """Return pointer, row stride and column stride of x (SIDE 0) or y (SIDE 1) of a segment.

    VECTOR is 0 if nothing is known of them; else the column stride is 1, the pointer a multiple of 16 bytes, and the
    row stride one of VECTOR elements.
    """
    p_entry = table + i_segment * ENTRIES + SIDE
    pointer = tl.load(p_entry).to(tl.pointer_type(DTYPE))
    row_stride = tl.load(p_entry + 2)
    col_stride = tl.load(p_entry + 4)
    if not WIDE:
        row_stride = row_stride.to(tl.int32)
        col_stride = col_stride.to(tl.int32)
    if VECTOR > 0:
        pointer = tl.multiple_of(pointer, 16)
        row_stride = tl.multiple_of(row_stride, VECTOR)
    return pointer, row_stride, col_stride


@kernel
def grouped_gram_kernel(
    table, schedule, out, partial, rows, columns, out_row, out_col,
    row_tiles, col_tiles, items, parts, pieces,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, MODE: tl.constexpr, ACC: tl.constexpr, DTYPE: tl.constexpr,
    TRIANGULAR: tl.constexpr, SPLIT: tl.constexpr, VECTOR: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Persistent: program i works through the items i, i + programs, ...; an item is (tile, part).

    `schedule` [parts, pieces, 4] holds `schedule.Piece`s. With SPLIT the sums of a part go to `partial`
    [items, BLOCK, BLOCK], else they are added to `out`.
    """
    o_block = tl.arange(0, BLOCK)
    o_depth = tl.arange(0, DEPTH)
    programs = tl.num_programs(0)
    mine = (items - tl.program_id(0) + programs - 1) // programs
    b_acc = tl.zeros((BLOCK, BLOCK), dtype=ACC)
    for step in range(mine * pieces):
        item = tl.program_id(0) + (step // pieces) * programs
        i_row, i_col = tile_of(item // parts, row_tiles, col_tiles, TRIANGULAR)
        i_row, i_col = i_row * BLOCK, i_col * BLOCK
        p_piece = schedule + ((item % parts) * pieces + step % pieces) * 4
        i_segment = tl.load(p_piece)
        start = tl.multiple_of(tl.load(p_piece + 1), DEPTH)
        count = tl.load(p_piece + 2).to(tl.int32)
        written = tl.load(p_piece + 3)
        x, x_row, x_col = operand(table, i_segment, 0, DTYPE, VECTOR, WIDE)
        y, y_row, y_col = operand(table, i_segment, 1, DTYPE, VECTOR, WIDE)
        if VECTOR > 0:
            count = tl.multiple_of(count, VECTOR)
            x_col, y_col = 1, 1
        o_x = tl.minimum(o_block, rows - 1 - i_row)
        o_y = tl.minimum(o_block, columns - 1 - i_col)
        b_acc = with_inner_products(
            b_acc, x + i_row.to(tl.int64) * x_row + start * x_col, y + i_col.to(tl.int64) * y_row + start * y_col,
            offsets(o_x, o_depth, x_row, x_col, WIDE), offsets(o_depth, o_y, y_col, y_row, WIDE),
            DEPTH * x_col, DEPTH * y_col, count, DEPTH, MODE,
        )  # fmt: skip
        if written > 0:
            if SPLIT:
                base = partial + item.to(tl.int64) * BLOCK * BLOCK
                add_large_tile(base, item * 0, item * 0, BLOCK, BLOCK, BLOCK, 1, b_acc, written > 1, False)
            else:
                add_large_tile(out, i_row, i_col, rows, columns, out_row, out_col, b_acc, written > 0, WIDE)
            b_acc = tl.zeros((BLOCK, BLOCK), dtype=ACC)
