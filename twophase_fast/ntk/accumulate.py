"""Adding the Gram blocks of factors into one kernel.

| output | accumulator | one factor adds |
|---|---|---|
| full | [N*C, M*C] | J J'^T |
| trace | [N, M] | sum_c J_c J'_c^T |
| diagonal | [C, N, M] | J_c J'_c^T for every c |

A symmetric kernel is accumulated in its upper triangle only and mirrored once at the end. Materialised Jacobians are
made in slices of output channels, so that no more than `slice_bytes` of them exist at a time.

On a CPU a slice's product is added at once, and narrow Jacobians are joined for one product. Small products leave a GPU
idle: there slices and Jacobians wait, up to `slice_bytes` of them, and are added in one launch (`grouped_gram_`).
"""

from __future__ import annotations

import torch

from twophase_fast import ops
from twophase_fast._pages import room
from twophase_fast._types import Precision
from twophase_fast.ntk.cost import PACKED_WIDTH, Method
from twophase_fast.ops._grouping import adds_together
from twophase_fast.rules.factors import Conv, Dense, Factor, Lookup, Outer, Tiled


class Accumulator:
    """A kernel block between `rows` and `columns` samples, built up factor by factor.

    Args:
        output: `full`, `trace` or `diagonal`.
        rows: Number of samples N.
        columns: Number of samples M, or None for the symmetric kernel.
        outputs: Number of outputs C.
        dtype: Dtype of the kernel.
        device: Device of the kernel.
        slice_bytes: Largest materialised Jacobian slice, in bytes.
        precision: Of Jacobians and contractions, where a backend has more than one.
    """

    def __init__(
        self,
        output: str,
        rows: int,
        columns: int | None,
        outputs: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        slice_bytes: int,
        precision: Precision = "highest",
    ) -> None:
        self.output, self.symmetric, self.outputs = output, columns is None, outputs
        self.rows, self.columns = rows, rows if columns is None else columns
        self.slice_bytes, self.precision = slice_bytes, precision
        shapes = {
            "full": (self.rows * outputs, self.columns * outputs),
            "trace": (self.rows, self.columns),
            "diagonal": (outputs, self.rows, self.columns),
        }
        self._sum = torch.zeros(shapes[output], dtype=dtype, device=device)
        self._packed: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        self._together = adds_together(self._sum, precision)
        self._places: dict[int, torch.Tensor] = {}
        self._chunk = slice(0, outputs)

    def select(self, chunk: slice) -> None:
        """Say which outputs the factors added next belong to (a full kernel takes all at once)."""
        if chunk != self._chunk:
            self.flush()
            self._chunk = chunk

    def add(self, left: Factor | Tiled, right: Factor | Tiled | None, method: Method) -> None:
        """Add the Gram block of one parameter by `method`; `right` is None for the symmetric kernel."""
        left, right = _same_kind(left, right, method)
        if isinstance(left, Dense):
            self._add_dense(left, right)
        elif isinstance(left, Lookup):
            self._add_lookup(left, right)
        elif method == "factored":
            self._add_factored(left, right)
        else:
            self._add_slices(left, right)

    def kernel(self) -> torch.Tensor:
        """Return the finished kernel: full [N, M, C, C], trace [N, M] or diagonal [N, M, C]."""
        self.select(slice(0, self.outputs))
        self.flush()
        if self.symmetric:
            ops.symmetrize_(self._sum)
        return self._view()

    def _target(self) -> torch.Tensor:
        """Return the part of the accumulator that belongs to the selected outputs."""
        return self._sum[self._chunk] if self.output == "diagonal" else self._sum

    def _view(self) -> torch.Tensor:
        """Return the selected part of the accumulator in the public axis order (a view)."""
        if self.output == "full":
            split = self._sum.view(self.rows, self.outputs, self.columns, self.outputs)
            return split.permute(0, 2, 1, 3)
        return self._sum if self.output == "trace" else self._target().permute(1, 2, 0)

    def _add_slices(self, left: Outer | Tiled | Conv, right: Outer | Tiled | Conv | None) -> None:
        """Materialise slices of channels, each in the place of the one before, and add their products."""
        sides = [left] if right is None else [left, right]
        for piece in left.channel_slices(self.slice_bytes):
            if self._together:
                self._make_room(left.slice_elements(piece) * left.operand.element_size())
            places = [self._place(k, piece, side) for k, side in enumerate(sides)]
            jacobians = [side.jacobian_slice(piece, place, self.precision) for side, place in zip(sides, places)]
            if self._together:
                self._packed.append((jacobians[0], jacobians[1] if len(sides) > 1 else None))
            else:
                self._add_jacobian(*jacobians)

    def _place(self, side: int, piece: slice, factor: Outer | Tiled | Conv) -> torch.Tensor:
        """Return memory for a slice of a side's Jacobian, which is used again for the next one unless slices wait."""
        wanted, like = factor.slice_elements(piece), factor.operand
        if self._together:
            return room((wanted,), like.dtype, like.device)
        if side not in self._places or self._places[side].numel() < wanted:
            self._places.pop(side, None)
            self._places[side] = room((wanted,), like.dtype, like.device)
        return self._places[side]

    def _add_dense(self, left: Dense, right: Dense | None) -> None:
        """Collect narrow Jacobians (biases, norms) for one product; add wide ones at once, unless all wait."""
        pair = left.rows(), None if right is None else right.rows()
        if self._together:
            self._make_room(pair[0].numel() * pair[0].element_size())
            self._packed.append(pair)
            return
        if pair[0].shape[2] > PACKED_WIDTH:
            self._add_jacobian(*pair)
            return
        self._make_room(pair[0].numel() * pair[0].element_size())
        self._packed.append(pair)
        if sum(j.shape[2] for j, _ in self._packed) > PACKED_WIDTH:
            self._add_packed()

    def _make_room(self, more: int) -> None:
        """Add what was collected, if it takes more than `slice_bytes` together with so many bytes more."""
        if self._packed and more + sum(j.numel() * j.element_size() for j, _ in self._packed) > self.slice_bytes:
            self._add_packed()

    def flush(self) -> None:
        """Add the narrow Jacobians collected so far, and let go of the memory of slices."""
        self.let_go()
        self._add_packed()

    def let_go(self) -> None:
        """Let go of the memory of slices."""
        self._places.clear()

    def _add_packed(self) -> None:
        if not self._packed:
            return
        pairs = self._packed.copy()
        self._packed.clear()
        if self._together:
            xs, ys = [self._operand(j) for j, _ in pairs], [self._operand(j) for _, j in pairs if j is not None]
            ops.grouped_gram_(self._target(), xs, ys or None, precision=self.precision)
            return
        if len(pairs) == 1:
            self._add_jacobian(*pairs[0])
            return
        left = torch.cat([j for j, _ in pairs], 2)
        self._add_jacobian(left, None if self.symmetric else torch.cat([j for _, j in pairs], 2))

    def _add_jacobian(self, left: torch.Tensor, right: torch.Tensor | None = None) -> None:
        """Add the Gram product of Jacobian slices [N, C, P]."""
        other = None if right is None else self._operand(right)
        ops.gram_(self._target(), self._operand(left), other, precision=self.precision)

    def _operand(self, jacobian: torch.Tensor) -> torch.Tensor:
        if self.output == "full":
            return jacobian.reshape(-1, jacobian.shape[2])
        if self.output == "trace":
            return jacobian.reshape(jacobian.shape[0], -1)
        return jacobian.transpose(0, 1)

    def _add_factored(self, left: Outer, right: Outer | None) -> None:
        others = (None, None) if right is None else (right.a, right.g)
        ops.factored_gram_(self._view(), left.a, left.g, *others, output=self.output, precision=self.precision)

    def _add_lookup(self, left: Lookup, right: Lookup | None) -> None:
        others = (None, None) if right is None else (right.tokens, right.g)
        options = {"output": self.output, "padding_idx": left.shape[0], "precision": self.precision}
        ops.embedding_gram_(self._view(), left.tokens, left.g, *others, **options)


def _same_kind(
    left: Factor | Tiled, right: Factor | Tiled | None, method: Method
) -> tuple[Factor | Tiled, Factor | Tiled | None]:
    """Bring both sides to the form the method needs."""
    sliced = method != "factored" and isinstance(left, Outer | Tiled) and isinstance(right, Outer | Tiled)
    if right is not None and type(left) is not type(right) and not sliced:
        return Dense(left.dense()), Dense(right.dense())
    if isinstance(left, Conv) and method == "factored":
        return left.unfold(), None if right is None else right.unfold()
    return left, right
