"""Keep policies: which kernels are stored, and which distances are stored in place of the others."""

from __future__ import annotations

import numpy as np
import torch

from twophase_fast._matrix import as_matrix, tensor_of
from twophase_fast._types import InputError
from twophase_fast.ops import one_minus_cos
from twophase_fast.storage import spec
from twophase_fast.storage.reader import Node, load_kernel


class KernelKeeper:
    """Decides for one node, and remembers the kernels that later ones are compared with.

    Those are the stored references, the first kernel of the run and the previous one. The last two live in memory
    only, so after a resume their distances to later kernels are missing.
    """

    def __init__(self, node: Node, keep: str, references: tuple[int, ...]) -> None:
        self._node, self._keep, self._references = node, keep, references
        self._reference_kernels: dict[int, np.ndarray] = {}
        self._first: tuple[int, np.ndarray] | None = None
        self._previous: tuple[int, np.ndarray] | None = None
        if keep != "all":
            self._reference_kernels = {step: load_kernel(ref) for step, ref in node.kernels.items()}

    def check(self, step: int, kernel: np.ndarray) -> None:
        """Refuse a repeated step, and a kernel unlike the ones before it.

        Raises:
            InputError: The step has a kernel already, or shape or dtype differ.
        """
        if step in self._node.kernels or step in steps_with_distances(self._node):
            raise InputError(f"step {step} already has a kernel; nothing was added")
        known = self._known_form()
        if known is not None and known != (kernel.shape, kernel.dtype.name):
            raise InputError(
                f"the kernels of this trajectory have shape and dtype {known}, got "
                f"{(kernel.shape, kernel.dtype.name)}; put kernels of another form into a child"
            )

    def keeps(self, step: int) -> bool:
        """Whether the kernel of this step is stored."""
        return self._keep == "all" or step in self._references

    def distances(self, step: int, kernel: np.ndarray) -> dict[str, np.ndarray] | None:
        """Rows of the distance table that this kernel gives, or None where every kernel is stored."""
        if self._keep == "all":
            return None
        others = dict(self._reference_kernels)
        others.update(pair for pair in (self._first, self._previous) if pair is not None)
        rows = [(step, step, 0.0)] + [(other, step, distance(k, kernel)) for other, k in sorted(others.items())]
        starts, ends, values = zip(*rows)
        return {"step_a": np.array(starts), "step_b": np.array(ends), "distance": np.array(values)}

    def remember(self, step: int, kernel: np.ndarray) -> None:
        """Note a kernel that has been recorded."""
        if self._keep == "all":
            return
        kept = (step, np.array(kernel))  # a copy: the caller may reuse the buffer
        if self._first is None and not self._was_recorded_before(step):
            self._first = kept
        if self.keeps(step):
            self._reference_kernels[step] = kept[1]
        self._previous = kept

    def _was_recorded_before(self, step: int) -> bool:
        return bool(steps_with_distances(self._node) - {step})

    def _known_form(self) -> tuple[tuple[int, ...], str] | None:
        if self._previous is not None:
            return self._previous[1].shape, self._previous[1].dtype.name
        for ref in self._node.kernels.values():
            return ref.shape, ref.dtype
        return None


def steps_with_distances(node: Node) -> set[int]:
    """Steps whose kernels were appended under a policy that stores distances."""
    return {int(step) for piece in node.tables.get(spec.DISTANCES, []) for step in piece["step_b"]}


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """S of two kernels of equal shape."""
    return float(one_minus_cos(_contiguous(first), _contiguous(second)))


def _contiguous(kernel: np.ndarray) -> torch.Tensor:
    """Matrix form where there is one: full kernels are views of `[N, C, M, C]` buffers."""
    return tensor_of(kernel if kernel.ndim == 3 else as_matrix(kernel), "kernel")
