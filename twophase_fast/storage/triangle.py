"""Exactly symmetric kernels stored as their upper triangle, bit for bit.

`[N, N]` and full `[N, N, C, C]` kernels become one matrix (sample-major) and then its rows from the diagonal on;
a diagonal kernel `[N, N, C]` becomes one such triangle per output, `[C, N(N+1)/2]`.
"""

from __future__ import annotations

import numpy as np

from twophase_fast._matrix import as_matrix, from_matrix

_BLOCK = 512  # rows compared or mirrored at once


def _stack(kernel: np.ndarray) -> np.ndarray:
    """Matrices of a kernel, `[K, R, R]`: K = 1, or C for a diagonal kernel."""
    return kernel.transpose(2, 0, 1) if kernel.ndim == 3 else as_matrix(kernel)[None]


def is_symmetric(kernel: np.ndarray) -> bool:
    """Whether a kernel equals its transpose bit for bit (so that -0.0, and any NaN, survive packing)."""
    stack = _stack(kernel)
    if stack.shape[1] != stack.shape[2]:
        return False
    bits = stack.view(f"i{stack.itemsize}")
    starts = range(0, stack.shape[1], _BLOCK)
    return all(
        np.array_equal(bits[:, i : i + _BLOCK, i:], bits[:, i:, i : i + _BLOCK].transpose(0, 2, 1)) for i in starts
    )


def entries(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the packed form of a symmetric kernel of this shape: `[T]`, or `[C, T]` for `[N, N, C]`."""
    rows = shape[0] * (shape[2] if len(shape) == 4 else 1)
    triangle = rows * (rows + 1) // 2
    return (shape[2], triangle) if len(shape) == 3 else (triangle,)


def pack(kernel: np.ndarray) -> np.ndarray:
    """Upper triangle of a symmetric kernel, row by row, with the shape `entries(kernel.shape)`."""
    stack = _stack(kernel)
    packed = np.empty((stack.shape[0], stack.shape[1] * (stack.shape[1] + 1) // 2), dtype=kernel.dtype)
    position = 0
    for row in range(stack.shape[1]):
        length = stack.shape[1] - row
        packed[:, position : position + length] = stack[:, row, row:]
        position += length
    return packed.reshape(entries(kernel.shape))


def unpack(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Kernel of the given shape from its upper triangle; full kernels are views of an `[N, C, N, C]` buffer."""
    rows = shape[0] * (shape[2] if len(shape) == 4 else 1)
    triangles = packed.reshape(-1, packed.shape[-1])
    stack = np.empty((len(triangles), rows, rows), dtype=packed.dtype)
    position = 0
    for row in range(rows):
        stack[:, row, row:] = triangles[:, position : position + rows - row]
        position += rows - row
    _mirror(stack)
    if len(shape) == 3:
        return stack.transpose(1, 2, 0)
    return stack[0] if len(shape) == 2 else from_matrix(stack[0], shape[2])


def _mirror(stack: np.ndarray) -> None:
    rows = stack.shape[1]
    for i in range(0, rows, _BLOCK):
        end = min(i + _BLOCK, rows)
        stack[:, end:, i:end] = stack[:, i:end, end:].transpose(0, 2, 1)
        block = stack[:, i:end, i:end]
        below = np.tri(end - i, k=-1, dtype=bool)
        block[:, below] = block.transpose(0, 2, 1)[:, below]
