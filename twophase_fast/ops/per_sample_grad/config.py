"""Launch configurations of the per-sample gradients in Triton: ROWS x COLUMNS of a product, DEPTH terms at a time."""

from __future__ import annotations

from twophase_fast.ops._triton.launch import LaunchTable, launch
from twophase_fast.ops._triton.modes import MODES

FEW_POSITIONS = 8
"""Up to so many positions the gradient of a linear map is written as a sum of outer products."""

_EXACT = launch(ROWS=128, COLUMNS=64, DEPTH=16, num_warps=8, num_stages=2)
_EXACT_SMALL = launch(ROWS=64, COLUMNS=32, DEPTH=16, num_warps=4, num_stages=3)
_MATRIX = launch(ROWS=128, COLUMNS=64, DEPTH=32, num_warps=8, num_stages=3)
_MATRIX_SMALL = launch(ROWS=64, COLUMNS=64, DEPTH=32, num_warps=8, num_stages=3)
_DOUBLE = launch(ROWS=64, COLUMNS=32, DEPTH=16, num_warps=4, num_stages=3)
_CONV = launch(ROWS=128, COLUMNS=64, DEPTH=16, num_warps=8, num_stages=3)
_CONV_EXACT = launch(ROWS=64, COLUMNS=64, DEPTH=16, num_warps=8, num_stages=3)
_CONV_DOUBLE = launch(ROWS=32, COLUMNS=32, DEPTH=16, num_warps=4, num_stages=2)

LINEAR = LaunchTable(
    op="per_sample_grad",
    rows={
        ("ieee", "float32"): (_EXACT, _EXACT_SMALL),
        ("ieee", "float64"): (_DOUBLE,),
        **{(mode, "float32"): (_MATRIX, _MATRIX_SMALL) for mode in MODES[1:]},
    },
    interpreted=launch(ROWS=16, COLUMNS=16, DEPTH=16),
)
"""Key: mode and dtype."""

OUTER = LaunchTable(
    op="per_sample_grad_outer",
    rows={
        ("ieee", "float32"): (
            launch(ROWS=32, COLUMNS=128, DEPTH=1, num_warps=8, num_stages=2),
            launch(ROWS=16, COLUMNS=128, DEPTH=1, num_warps=4, num_stages=2),
        ),
        ("ieee", "float64"): (launch(ROWS=16, COLUMNS=128, DEPTH=1, num_warps=4, num_stages=2),),
    },
    interpreted=launch(ROWS=16, COLUMNS=16, DEPTH=1),
)
"""The same for few positions; bound by writing the result."""

CONV = LaunchTable(
    op="per_sample_conv_grad",
    rows={
        ("ieee", "float32"): (_CONV_EXACT, _EXACT_SMALL),
        ("ieee", "float64"): (_CONV_DOUBLE,),
        **{(mode, "float32"): (_CONV, _MATRIX_SMALL) for mode in MODES[1:]},
    },
    interpreted=launch(ROWS=16, COLUMNS=16, DEPTH=16),
)
"""The same for convolutions."""
