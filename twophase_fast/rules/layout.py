"""Where each sample's entries sit in a tensor, and how that is found without guessing.

| layout | which entries belong to sample n |
|---|---|
| `Layout` | one axis of size outer * N * inner; its element i belongs to sample (i // inner) % N |
| `RowLayout` | one axis with an explicit label per row (routed or permuted rows) |
| `ElementLayout` | an explicit label per element |

A plain batch axis is `Layout` with outer = inner = 1; windows of an image folded into the batch give inner > 1; a
sequence-major row axis [T * N, d] gives outer = T. All three turn a tensor into [N, *before, outer, inner, *after].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

UNKNOWN = -1


@dataclass(frozen=True)
class Layout:
    """Position of the sample axis: `axis` has size `outer * N * inner`."""

    axis: int
    outer: int = 1
    inner: int = 1

    @property
    def plain(self) -> bool:
        """Whether the axis is the first one and holds exactly one entry per sample."""
        return self.axis == 0 and self.outer == self.inner == 1

    @property
    def leading(self) -> bool:
        """Whether the axis is the first one and holds the entries of one sample after the other."""
        return self.axis == 0 and self.outer == 1

    def by_sample(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the view [N, *before, outer, inner, *after] of `tensor` [*before, outer*N*inner, *after]."""
        count = tensor.shape[self.axis] // (self.outer * self.inner)
        split = tensor.unflatten(self.axis, (self.outer, count, self.inner))
        return split.movedim(self.axis + 1, 0)

    def place(self, values: torch.Tensor, n: int, shape: torch.Size) -> torch.Tensor:
        """Return a tensor of `shape` that holds `values` at sample n and zero elsewhere."""
        placed = values.new_zeros(shape)
        self.by_sample(placed)[n] = values
        return placed


@dataclass(frozen=True)
class RowLayout:
    """An explicit label per index of `axis`; rows labelled -1 belong to no sample (their cotangent is zero)."""

    axis: int
    labels: torch.Tensor
    samples: int
    plain = leading = False

    @cached_property
    def _index(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of each sample [N, T], padded with row 0, and where they are real."""
        owned = [(self.labels == n).nonzero().squeeze(1) for n in range(self.samples)]
        width = max(1, *(len(rows) for rows in owned))
        index = self.labels.new_zeros(self.samples, width)
        real = torch.zeros(self.samples, width, dtype=torch.bool, device=self.labels.device)
        for n, rows in enumerate(owned):
            index[n, : len(rows)], real[n, : len(rows)] = rows, True
        return index, real

    def by_sample(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return [N, *before, 1, T, *after], zero where a sample has fewer than T rows."""
        index, real = self._index
        rows = tensor.movedim(self.axis, 0)
        picked = rows[index]  # [N, T, *before, *after]
        mask = real.view(*real.shape, *[1] * (picked.dim() - 2))
        picked = torch.where(mask, picked, torch.zeros((), dtype=picked.dtype, device=picked.device))
        return picked.movedim(1, self.axis + 1).unsqueeze(self.axis + 1)

    def place(self, values: torch.Tensor, n: int, shape: torch.Size) -> torch.Tensor:
        """Return a tensor of `shape` that holds `values` at the rows of sample n and zero elsewhere."""
        index, real = self._index
        placed = values.new_zeros(shape)
        rows = values.squeeze(self.axis).movedim(self.axis, 0)  # [T, *before, *after]
        placed.movedim(self.axis, 0)[index[n][real[n]]] = rows[real[n]]
        return placed


@dataclass(frozen=True)
class ElementLayout:
    """An explicit label per element; only the generic rule can read it."""

    labels: torch.Tensor
    samples: int
    plain = leading = False
    axis = None

    def by_sample(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return [N, *shape]: the tensor once per sample, zero at the other samples' entries."""
        owned = self.labels == torch.arange(self.samples, device=tensor.device).view(-1, *[1] * tensor.dim())
        return torch.where(owned, tensor, torch.zeros((), dtype=tensor.dtype, device=tensor.device))

    def place(self, values: torch.Tensor, n: int, shape: torch.Size) -> torch.Tensor:
        """Return `values`, which already have the shape of the whole tensor."""
        return values


AnyLayout = Layout | RowLayout | ElementLayout


def sample_layout(small: torch.Size, large: torch.Size, n_small: int, n_large: int) -> Iterator[Layout]:
    """Yield every layout that explains how a shape grew from `n_small` to `n_large` samples.

    Exactly one axis may change, in proportion to the number of samples; with outer * inner = 1 the layout is unique.
    """
    changed = [k for k, (s, t) in enumerate(zip(small, large)) if s != t]
    if len(small) != len(large) or len(changed) != 1:
        return
    axis = changed[0]
    share, rest = divmod(small[axis], n_small)
    if rest or share * n_large != large[axis]:
        return
    for inner in range(1, share + 1):
        if share % inner == 0:
            yield Layout(axis, share // inner, inner)


def labels_agree(layout: Layout, labels: torch.Tensor) -> bool:
    """Return whether every element with a known label belongs to the sample `layout` says it does."""
    size = labels.shape[layout.axis]
    count = size // (layout.outer * layout.inner)
    expected = (torch.arange(size, device=labels.device) // layout.inner) % count
    view = [1] * labels.dim()
    view[layout.axis] = size
    return bool(((labels == expected.view(view)) | (labels == UNKNOWN)).all())


def explicit_layout(labels: torch.Tensor, samples: int) -> RowLayout | ElementLayout:
    """Return the layout given by element labels: per row of the first axis that sorts them, else per element."""
    for axis in range(labels.dim()):
        rows = labels.movedim(axis, 0).reshape(labels.shape[axis], -1)
        highest = rows.amax(1)
        if bool(((rows == highest[:, None]) | (rows == UNKNOWN)).all()):
            return RowLayout(axis, highest, samples)
    return ElementLayout(labels, samples)
