"""Triton kernels of pair moments: one program per chunk of a tensor, then the sums over chunks in their order.

`table` holds the addresses of all tensors, [runs (+ 1), tensors]; `chunk_map` [chunks, 2] the tensor and the first
element of every chunk. Largest |d| are compared as the integers that have the same bits: for numbers ≥ 0 these have the
same order, and NaN is above all.
"""

import triton.language as tl

from twophase_fast.ops._triton.kernel import kernel


@kernel
def vector(table, index, DTYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Return the pointer in row `index` of a table of addresses; ALIGNED: it is a multiple of 16 bytes."""
    pointer = tl.load(table + index).to(tl.pointer_type(DTYPE))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@kernel
def widened(b_value):
    """Return values of any dtype as float64."""
    if b_value.dtype == tl.float64:
        b_wide = b_value
    else:
        b_wide = b_value.to(tl.float32).to(tl.float64)
    return b_wide


@kernel
def chunk_of(chunk_map, lengths, i_chunk, chunk):
    """Return the tensor of a chunk, its first element and how many it has."""
    i_tensor = tl.load(chunk_map + 2 * i_chunk)
    start = tl.multiple_of(tl.load(chunk_map + 2 * i_chunk + 1), 16)
    return i_tensor, start, tl.minimum(tl.load(lengths + i_tensor) - start, chunk).to(tl.int32)


@kernel
def with_moments(b_x, b_y, b_xy, b_xx, b_yy, b_dd, b_dx, b_ds, b_largest, b_changed):
    """Return the moments with those of b_x and b_y added, element by element."""
    b_x, b_y = widened(b_x), widened(b_y)
    b_d = b_y - b_x
    return (
        b_xy + b_x * b_y,
        b_xx + b_x * b_x,
        b_yy + b_y * b_y,
        b_dd + b_d * b_d,
        b_dx + b_d * b_x,
        b_ds + b_d * (b_x + b_y),
        tl.maximum(b_largest, tl.abs(b_d).to(tl.int64, bitcast=True)),
        b_changed + (b_d != 0.0).to(tl.int32),
    )


@kernel
def with_residual(b_x, b_y, b_minus_scale, b_ee, b_ex):
    """Return Σ e² and Σ e·x with those of e = y − scale·x added, element by element."""
    b_x, b_y = widened(b_x), widened(b_y)
    b_e = tl.fma(b_minus_scale, b_x, b_y)
    return b_ee + b_e * b_e, b_ex + b_e * b_x


@kernel
def moments_kernel(
    table, chunk_map, lengths, partial, tensors, pairs, others, first_other, chunk,
    DTYPE: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Write the moments of one chunk for all pairs to partial [chunks, pairs, 8]; pair = x · others + y.

    Row y of the pair is run `first_other + y` of the table.
    """
    i_chunk = tl.program_id(0)
    i_tensor, start, count = chunk_of(chunk_map, lengths, i_chunk, chunk)
    o_block = tl.arange(0, BLOCK)
    for i_pair in range(pairs):
        x = vector(table, (i_pair // others) * tensors + i_tensor, DTYPE, ALIGNED) + start
        y = vector(table, (first_other + i_pair % others) * tensors + i_tensor, DTYPE, ALIGNED) + start
        b_xy = tl.zeros((BLOCK,), dtype=tl.float64)
        b_xx = tl.zeros((BLOCK,), dtype=tl.float64)
        b_yy = tl.zeros((BLOCK,), dtype=tl.float64)
        b_dd = tl.zeros((BLOCK,), dtype=tl.float64)
        b_dx = tl.zeros((BLOCK,), dtype=tl.float64)
        b_ds = tl.zeros((BLOCK,), dtype=tl.float64)
        b_largest = tl.zeros((BLOCK,), dtype=tl.int64)
        b_changed = tl.zeros((BLOCK,), dtype=tl.int32)
        whole = count // BLOCK * BLOCK
        for o in tl.range(0, whole, BLOCK, num_stages=STAGES):  # no mask, so that loads are wide
            b_xy, b_xx, b_yy, b_dd, b_dx, b_ds, b_largest, b_changed = with_moments(
                tl.load(x + o + o_block), tl.load(y + o + o_block),
                b_xy, b_xx, b_yy, b_dd, b_dx, b_ds, b_largest, b_changed,
            )  # fmt: skip
        m_rest = o_block < count - whole
        b_xy, b_xx, b_yy, b_dd, b_dx, b_ds, b_largest, b_changed = with_moments(
            tl.load(x + whole + o_block, mask=m_rest, other=0.0), tl.load(y + whole + o_block, mask=m_rest, other=0.0),
            b_xy, b_xx, b_yy, b_dd, b_dx, b_ds, b_largest, b_changed,
        )  # fmt: skip
        p_out = partial + (i_chunk.to(tl.int64) * pairs + i_pair) * 8
        tl.store(p_out + 0, tl.sum(b_xy, axis=0))
        tl.store(p_out + 1, tl.sum(b_xx, axis=0))
        tl.store(p_out + 2, tl.sum(b_yy, axis=0))
        tl.store(p_out + 3, tl.sum(b_dd, axis=0))
        tl.store(p_out + 4, tl.sum(b_dx, axis=0))
        tl.store(p_out + 5, tl.sum(b_ds, axis=0))
        tl.store(p_out + 6, tl.max(b_largest, axis=0).to(tl.float64, bitcast=True))
        tl.store(p_out + 7, tl.sum(b_changed, axis=0).to(tl.float64))


@kernel
def residual_kernel(
    table, chunk_map, lengths, partial, tensors, scale_ptr, chunk,
    DTYPE: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Write Σ e² and Σ e·x of one chunk, e = y − scale·x rounded once, to partial [chunks, 2]."""
    i_chunk = tl.program_id(0)
    i_tensor, start, count = chunk_of(chunk_map, lengths, i_chunk, chunk)
    x = vector(table, i_tensor, DTYPE, ALIGNED) + start
    y = vector(table, tensors + i_tensor, DTYPE, ALIGNED) + start
    o_block = tl.arange(0, BLOCK)
    b_minus_scale = tl.zeros((BLOCK,), dtype=tl.float64) - tl.load(scale_ptr)
    b_ee = tl.zeros((BLOCK,), dtype=tl.float64)
    b_ex = tl.zeros((BLOCK,), dtype=tl.float64)
    whole = count // BLOCK * BLOCK
    for o in tl.range(0, whole, BLOCK, num_stages=STAGES):
        b_ee, b_ex = with_residual(tl.load(x + o + o_block), tl.load(y + o + o_block), b_minus_scale, b_ee, b_ex)
    m_rest = o_block < count - whole
    b_x = tl.load(x + whole + o_block, mask=m_rest, other=0.0)
    b_y = tl.load(y + whole + o_block, mask=m_rest, other=0.0)
    b_ee, b_ex = with_residual(b_x, b_y, b_minus_scale, b_ee, b_ex)
    p_out = partial + i_chunk.to(tl.int64) * 2
    tl.store(p_out + 0, tl.sum(b_ee, axis=0))
    tl.store(p_out + 1, tl.sum(b_ex, axis=0))


@kernel
def sum_kernel(
    partial, first_chunk, out, pairs, out_tensors, out_tensor_index,
    FIELDS: tl.constexpr, LARGEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the moments of a tensor's chunks; one program per (tensor, pair).

    `out` is [pairs, out_tensors, FIELDS]; tensor t of this launch is tensor out_tensor_index[t] there. Of field LARGEST
    the largest is taken instead.
    """
    i_tensor = tl.program_id(0) // pairs
    i_pair = tl.program_id(0) % pairs
    first = tl.load(first_chunk + i_tensor)
    count = (tl.load(first_chunk + i_tensor + 1) - first).to(tl.int32)
    o_chunk = tl.arange(0, BLOCK)
    o_field = tl.arange(0, FIELDS)
    p_first = partial + (first * pairs + i_pair) * FIELDS
    b_sum = tl.zeros((BLOCK, FIELDS), dtype=tl.float64)
    b_largest = tl.zeros((BLOCK, FIELDS), dtype=tl.int64)
    for o in range(0, count, BLOCK):
        rows = (o + o_chunk).to(tl.int64) * pairs * FIELDS
        b_part = tl.load(p_first + rows[:, None] + o_field[None, :], mask=(o_chunk < count - o)[:, None], other=0.0)
        b_sum += b_part
        b_largest = tl.maximum(b_largest, b_part.to(tl.int64, bitcast=True))
    b_out = tl.where(o_field == LARGEST, tl.max(b_largest, axis=0).to(tl.float64, bitcast=True), tl.sum(b_sum, axis=0))
    row = i_pair.to(tl.int64) * out_tensors + tl.load(out_tensor_index + i_tensor)
    tl.store(out + row * FIELDS + o_field, b_out)
