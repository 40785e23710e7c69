"""How tensor cores round, put into Triton's interpreter, which otherwise multiplies in the operands' own dtype.

| operands | rounding here | on the device |
|---|---|---|
| float32, `ieee` | none | none |
| float32, `tf32` | 13 low bits cut off | cut off by the unit (or rounded: better) |
| float32, `tf32x3` | two tf32 parts, rounded to nearest, three products | the same |
| bfloat16, float16 | none, summed in float32 | the same |

Also: Triton's interpreter cuts bits off when it converts float32 to bfloat16; devices round to nearest, ties to even.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import triton.language as tl
from triton._C.libtriton import ir
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

_TF32_BITS = np.uint32(13)
"""Bits of a float32 that tf32 does not have."""


@contextlib.contextmanager
def as_on_tensor_cores() -> Iterator[None]:
    """Let interpreted `tl.dot`, `tl.fma` and conversions to bfloat16 round as devices do."""
    before = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl, InterpreterBuilder.create_fma
    InterpreterBuilder.create_dot, InterpreterBuilder.create_fma = _create_dot, _create_fma
    InterpreterBuilder.cast_impl = lambda self, source, kind: _cast(self, source, kind, before[1])
    try:
        yield
    finally:
        InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl, InterpreterBuilder.create_fma = before


def _create_dot(_: Any, a: Any, b: Any, acc: Any, precision: Any, max_imprecise: int) -> TensorHandle:
    dtype = acc.data.dtype
    total = acc.data
    for left, right in _products(_exact(a), _exact(b), precision):
        total = total + np.matmul(left.astype(dtype), right.astype(dtype))
    return TensorHandle(total, acc.dtype.scalar)


def _products(a: np.ndarray, b: np.ndarray, precision: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the pairs of operands whose products are summed, smallest first."""
    if a.dtype != np.float32 or precision == ir.INPUT_PRECISION.IEEE:
        return [(a, b)]
    if precision == ir.INPUT_PRECISION.TF32:
        return [(_cut(a), _cut(b))]
    if precision == ir.INPUT_PRECISION.TF32x3:
        high_a, high_b = _round_to_tf32(a), _round_to_tf32(b)
        low_a, low_b = _round_to_tf32(a - high_a), _round_to_tf32(b - high_b)
        return [(low_a, high_b), (high_a, low_b), (high_a, high_b)]
    raise NotImplementedError(
        f"the interpreter has no rounding for input_precision {precision}; use ops/_triton/dot.py"
    )


def _exact(operand: Any) -> np.ndarray:
    """Return an operand of a dot as float16, float32 or float64; bfloat16, which comes as bits, as float32."""
    return _widen(operand.data) if operand.dtype.scalar == tl.bfloat16 else operand.data


def _cut(values: np.ndarray) -> np.ndarray:
    return ((values.view(np.uint32) >> _TF32_BITS) << _TF32_BITS).view(np.float32)


def _round_to_tf32(values: np.ndarray) -> np.ndarray:
    half = np.uint32(1 << (int(_TF32_BITS) - 1))
    return np.where(np.isfinite(values), _cut((values.view(np.uint32) + half).view(np.float32)), values)


def _cast(builder: Any, source: Any, kind: Any, otherwise: Any) -> TensorHandle:
    pair = source.dtype.scalar, kind.scalar
    if pair == (tl.float32, tl.bfloat16):
        return TensorHandle(_narrow(source.data), tl.bfloat16)
    if pair == (tl.bfloat16, tl.float32):
        return TensorHandle(_widen(source.data), tl.float32)
    return otherwise(builder, source, kind)


def _create_fma(_: Any, x: Any, y: Any, z: Any) -> TensorHandle:
    """x·y + z with an exact product: in float64 for float32, by Dekker's product for float64."""
    if x.data.dtype == np.float32:
        return TensorHandle((x.data.astype(np.float64) * y.data + z.data).astype(np.float32), z.dtype.scalar)
    product = x.data * y.data
    (x_high, x_low), (y_high, y_low) = _halves(x.data), _halves(y.data)
    error = ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low
    return TensorHandle((product + z.data) + error, z.dtype.scalar)


def _halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two numbers of at most 27 bits with the sum `values`."""
    scaled = values * 134217729.0  # 2^27 + 1
    high = scaled - (scaled - values)
    return high, values - high


def _widen(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _narrow(values: np.ndarray) -> np.ndarray:
    """Return the bits of `values` rounded to bfloat16, to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (np.where(np.isnan(values), np.uint32(0x7FC00000), rounded) >> np.uint32(16)).astype(np.uint16)
