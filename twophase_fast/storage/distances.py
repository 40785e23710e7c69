"""The matrix S[i, j] of kernel distances over the steps of a trajectory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from twophase_fast._types import StorageError
from twophase_fast.storage import spec
from twophase_fast.storage.keep import distance, steps_with_distances
from twophase_fast.storage.reader import KernelRef, Node, load_kernel

_MEMORY = 1 << 29  # bytes of kernels held at once


def distance_matrix(node: Node, steps: Iterable[int] | None, where: str) -> np.ndarray:
    """S over all pairs of steps: from stored kernels, else as stored by the keep policy, else nan.

    Args:
        node: Node of the index.
        steps: Steps, or None for all that had a kernel.
        where: Name of the node, for messages.

    Returns:
        Symmetric float64 matrix with a zero diagonal.

    Raises:
        StorageError: A step without kernel.
    """
    known = set(node.kernels) | steps_with_distances(node)
    chosen = sorted(known) if steps is None else [int(step) for step in steps]
    missing = [step for step in chosen if step not in known]
    if missing:
        raise StorageError(f"{where} has no kernel at steps {missing}; it has {sorted(known) or 'none'}")
    ordered = sorted(set(chosen))  # one order of evaluation, so that one pair always gives the same bits
    matrix = _stored_distances(node, ordered)
    stored = [i for i, step in enumerate(ordered) if step in node.kernels]
    for a, b, value in _pairs([node.kernels[ordered[i]] for i in stored]):
        matrix[stored[a], stored[b]] = matrix[stored[b], stored[a]] = value
    places = [ordered.index(step) for step in chosen]
    return matrix[np.ix_(places, places)]


def _stored_distances(node: Node, steps: list[int]) -> np.ndarray:
    table: dict[tuple[int, int], float] = {}
    for piece in node.tables.get(spec.DISTANCES, []):
        table.update(zip(zip(piece["step_a"].tolist(), piece["step_b"].tolist()), piece["distance"].tolist()))
    matrix = np.full((len(steps), len(steps)), np.nan)
    for i, first in enumerate(steps):
        for j, second in enumerate(steps):
            matrix[i, j] = table.get((first, second), table.get((second, first), np.nan))
    np.fill_diagonal(matrix, 0.0)
    return matrix


def _pairs(references: list[KernelRef]):
    """Yield (i, j, S) for i < j, with as many kernels in memory as the budget allows."""
    if not references:
        return
    size = int(np.prod(references[0].shape)) * np.dtype(references[0].dtype).itemsize
    block = max(1, _MEMORY // size)
    for start in range(0, len(references), block):
        held = {i: load_kernel(references[i]) for i in range(start, min(start + block, len(references)))}
        for j in range(start + 1, len(references)):
            other = held[j] if j in held else load_kernel(references[j])
            for i in held:
                if i < j:
                    yield i, j, distance(held[i], other)
