"""Triton kernels of the backward of BatchNorm in evaluation mode and of ReLU: what cotangents share is read once.

A program takes a tile of one image, CHANNELS x POSITIONS, and some of the sample's cotangents one after the other;
programs that read the same tile of x and of the ReLU follow one another, so that it comes from cache. Sums over
positions that take several tiles are written apart and added in order.
"""

import triton.language as tl

from twophase_fast.ops._triton.kernel import kernel


@kernel
def multiple(count, ALIGN: tl.constexpr):
    """Return a number that the compiler knows to be a multiple of ALIGN, which it is."""
    return count // ALIGN * ALIGN


@kernel
def batch_norm_kernel(
    p_out, p_weight_grad, p_bias_grad, p_g, p_x, p_mean, p_rstd, p_weight, p_relu,
    n_cotangents, n_channels, n_positions, n_image, n_each, n_groups, n_tiles, n_blocks,
    WEIGHT: tl.constexpr, RELU: tl.constexpr, ALIGN: tl.constexpr,
    CHANNELS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """Write h·scale, and Σ h·(x − mean)·rstd and Σ h over a tile's positions, h = g or 0 where the ReLU is off.

    Grid: samples x tiles of channels x blocks of positions x groups of cotangents. Sums are [N, C, K, blocks].
    """
    pid = tl.program_id(0)
    i_group = pid % n_groups
    i_block = pid // n_groups % n_blocks
    i_tile = pid // n_groups // n_blocks % n_tiles
    i_sample = (pid // n_groups // n_blocks // n_tiles).to(tl.int64)
    width = multiple(n_positions, ALIGN)
    first = i_tile * CHANNELS
    start = i_block.to(tl.int64) * POSITIONS
    o_channel = tl.arange(0, CHANNELS)
    o_position = tl.arange(0, POSITIONS)
    m_channel = o_channel < n_channels - first
    mask = m_channel[:, None] & (o_position < width - start)[None, :]
    offsets = o_channel[:, None] * width + o_position[None, :]  # several channels only where rows are short
    corner = first.to(tl.int64) * width + start
    b_mean = tl.load(p_mean + first + o_channel, mask=m_channel, other=0.0)
    b_rstd = tl.load(p_rstd + first + o_channel, mask=m_channel, other=0.0)
    b_scale = b_rstd
    if WEIGHT:
        b_scale = b_rstd * tl.load(p_weight + first + o_channel, mask=m_channel, other=0.0)
    b_x = tl.load(p_x + i_sample * n_image + corner + offsets, mask=mask, other=0.0)
    b_x = tl.where(mask, (b_x - b_mean[:, None]) * b_rstd[:, None], 0.0)
    b_on = mask
    if RELU:
        b_relu = tl.load(p_relu + i_sample * n_image + corner + offsets, mask=mask, other=0.0)
        b_on = mask & ~(b_relu <= 0.0)
    i_row = i_sample * n_cotangents + i_group * n_each
    p_g += i_row * n_image + corner
    p_out += i_row * n_image + corner
    sums = (i_row * n_channels + first) * n_blocks + i_block
    o_sum = o_channel * n_blocks
    for _ in range(tl.minimum(n_each, n_cotangents - i_group * n_each)):
        b_g = tl.where(b_on, tl.load(p_g + offsets, mask=mask, other=0.0), 0.0)
        tl.store(p_weight_grad + sums + o_sum, tl.sum(b_g * b_x, axis=1), mask=m_channel)
        tl.store(p_bias_grad + sums + o_sum, tl.sum(b_g, axis=1), mask=m_channel)
        tl.store(p_out + offsets, b_g * b_scale[:, None], mask=mask)
        p_g += n_image
        p_out += n_image
        sums += n_channels * n_blocks


@kernel
def add_blocks_kernel(p_sums, p_parts, n_rows, n_blocks, ROWS: tl.constexpr, BLOCKS: tl.constexpr):
    """Write the sums of [rows, blocks] over the blocks, in order."""
    i_first = tl.program_id(0).to(tl.int64) * ROWS
    o_row = tl.arange(0, ROWS)
    o_block = tl.arange(0, BLOCKS)
    m_row = o_row < n_rows - i_first
    p_row = p_parts + (i_first + o_row) * n_blocks
    b_sum = tl.zeros((ROWS, BLOCKS), dtype=p_sums.dtype.element_ty)
    for o in range(0, n_blocks, BLOCKS):
        mask = m_row[:, None] & (o_block < n_blocks - o)[None, :]
        b_sum += tl.load(p_row[:, None] + o + o_block[None, :], mask=mask, other=0.0)
    tl.store(p_sums + i_first + o_row, tl.sum(b_sum, axis=1), mask=m_row)


@kernel
def relu_kernel(
    p_g, p_relu, n_cotangents, n_elements, n_each, n_groups, n_blocks, ALIGN: tl.constexpr, ELEMENTS: tl.constexpr
):
    """Set g [N, C, elements] to 0 where relu [N, elements] ≤ 0; grid: samples x blocks x groups of cotangents."""
    pid = tl.program_id(0)
    i_group = pid % n_groups
    i_sample = (pid // n_groups // n_blocks).to(tl.int64)
    width = multiple(n_elements, ALIGN)
    start = (pid // n_groups % n_blocks).to(tl.int64) * ELEMENTS
    offsets = tl.arange(0, ELEMENTS)
    mask = offsets < width - start
    b_on = ~(tl.load(p_relu + i_sample * width + start + offsets, mask=mask, other=0.0) <= 0.0)
    p_g += (i_sample * n_cotangents + i_group * n_each) * width + start
    for _ in range(tl.minimum(n_each, n_cotangents - i_group * n_each)):
        tl.store(p_g + offsets, tl.where(b_on, tl.load(p_g + offsets, mask=mask, other=0.0), 0.0), mask=mask)
        p_g += width
