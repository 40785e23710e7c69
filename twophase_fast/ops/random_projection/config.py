"""Launch configurations of `random_projection` in Triton: ROWS x COLUMNS of the result, DEPTH terms at a time."""

from __future__ import annotations

from twophase_fast.ops._triton.launch import LaunchTable, launch

FULL_GRID = 256
"""Programs that fill a GPU; with fewer the sum is cut into slices."""
LEAST_SLICE = 2048
"""Terms of a slice at least."""

_EXACT = launch(ROWS=64, COLUMNS=64, DEPTH=16, num_warps=8, num_stages=3)
_MATRIX = launch(ROWS=64, COLUMNS=64, DEPTH=32, num_warps=8, num_stages=3)
_SPLIT = launch(ROWS=64, COLUMNS=32, DEPTH=32, num_warps=4, num_stages=3)
_DOUBLE = launch(ROWS=32, COLUMNS=32, DEPTH=16, num_warps=4, num_stages=2)

LAUNCHES = LaunchTable(
    op="random_projection",
    rows={
        ("ieee", "float32"): (_EXACT,),
        ("ieee", "float64"): (_DOUBLE,),
        ("tf32x3", "float32"): (_SPLIT,),
        ("tf32", "float32"): (_MATRIX,),
        ("bf16x3", "float32"): (_MATRIX,),
    },
    interpreted=launch(ROWS=16, COLUMNS=32, DEPTH=16),
)
"""Key: mode and dtype. COLUMNS is a multiple of 32, the signs in a word."""
