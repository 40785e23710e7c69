"""Where the sample axis sits in a tensor, and how it is found without guessing.

A tensor made from N samples has one axis of size outer * N * inner; element `i` of that axis belongs to sample
(i // inner) % N. A plain batch axis is outer = inner = 1; windows of an image folded into the batch give inner > 1;
a sequence-major row axis [T * N, d] gives outer = T.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch


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

    def count(self, tensor: torch.Tensor) -> int:
        """Return the number of samples held by `tensor`."""
        return tensor.shape[self.axis] // (self.outer * self.inner)

    def by_sample(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the view [N, *before, outer, inner, *after] of `tensor` [*before, outer*N*inner, *after]."""
        split = tensor.unflatten(self.axis, (self.outer, self.count(tensor), self.inner))
        return split.movedim(self.axis + 1, 0)

    def from_samples(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return [*before, outer*N*inner, *after] from `tensor` [N, *before, outer, inner, *after]."""
        return tensor.movedim(0, self.axis + 1).flatten(self.axis, self.axis + 2)


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


def labels_agree(layout: Layout, labels: torch.Tensor, known: torch.Tensor) -> bool:
    """Return whether every element with a known label belongs to the sample `layout` says it does."""
    size = labels.shape[layout.axis]
    count = size // (layout.outer * layout.inner)
    expected = (torch.arange(size, device=labels.device) // layout.inner) % count
    view = [1] * labels.dim()
    view[layout.axis] = size
    return bool(((labels == expected.view(view)) | ~known).all())
