"""Products of blocks in every precision mode (`modes.py` says which mode a call runs in).

`bf16x3` writes a = h + l with bfloat16 parts h = bf16(a), l = bf16(a − h) and sums h·h' + h·l' + l·h'; what is left out
is of relative size 2⁻¹⁶. `tf32x3` does the same with tf32 parts, and leaves out 2⁻²².
"""

from __future__ import annotations

import triton.language as tl

from twophase_fast.ops._triton.kernel import kernel


@kernel
def dot(a, b, acc, MODE: tl.constexpr):
    """Return acc + a b for blocks a [M, K], b [K, N], acc [M, N]; acc is float32, for float64 blocks float64."""
    if MODE == "bf16x3":
        a_high = a.to(tl.bfloat16)
        b_high = b.to(tl.bfloat16)
        a_low = (a - a_high.to(tl.float32)).to(tl.bfloat16)
        b_low = (b - b_high.to(tl.float32)).to(tl.bfloat16)
        acc = tl.dot(a_low, b_high, acc)
        acc = tl.dot(a_high, b_low, acc)
        acc = tl.dot(a_high, b_high, acc)
    else:
        acc = tl.dot(a, b, acc, input_precision=MODE, out_dtype=acc.dtype)
    return acc
