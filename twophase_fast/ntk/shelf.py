"""Keeping one parameter's factors of all tiles until its Gram block is added.

The first tile allocates room for all samples and every tile is copied into its place, so that no second copy is made
when the tiles are joined. Cotangents whose Jacobian is materialised in slices stay where they arrived, as the slices of
one tile can be made after those of another. Tiles that do not match the first (data-dependent programs) are kept apart
too and joined at the end. What is not copied may be an activation of the model; a model that writes later samples over
it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise

import torch

from twophase_fast._pages import room
from twophase_fast._types import Precision, UnsupportedModelError
from twophase_fast.rules.factors import Conv, Dense, Factor, Outer, Tiled, concat, shrinks

SMALL_BYTES = 2**20  # a factor of so many bytes may wait until the pull-back is done
WAITING_BYTES = 2**24  # all that wait
"""Blocks of small factors, those of the last layers among them, are often the largest: added last, they are rounded
once, while all that is added to them would be rounded to their size."""


class Shelf:
    """Room for one parameter's factor.

    Args:
        lengths: Samples of every tile, in order.
        precision: Of Jacobians that are materialised.
    """

    def __init__(self, lengths: Sequence[int], precision: Precision = "highest") -> None:
        self._lengths, self._precision = list(lengths), precision
        self._tiles: list[Factor | None] = []
        self._versions: list[list[int]] = []
        self._whole: Factor | None = None
        self._filled = 0
        self._in_slices = False

    @property
    def empty(self) -> bool:
        """Whether no tile has this parameter."""
        return self._whole is None and all(tile is None for tile in self._tiles)

    def put(self, factor: Factor | None, *, materialise: bool = False) -> None:
        """Keep the next tile's factor, materialised if that is smaller and `materialise` says so.

        None stands for a tile without this parameter.
        """
        if materialise and factor is not None and shrinks(factor):
            factor = Dense(factor.dense(out=self._place(factor), precision=self._precision))
        apart = materialise and isinstance(factor, Outer) and len(self._lengths) > 1 and self._whole is None
        if apart and factor.g.untyped_storage().nbytes() == factor.g.nbytes:  # else more would be kept alive
            self._in_slices = True
            self._keep_apart(replace(factor, a=factor.a.clone()))
            return
        if len(self._lengths) > 1 and not self._tiles and factor is not None:
            self._whole = self._whole or _room(factor, sum(self._lengths))
        if self._whole is None or factor is None or not _alike(self._whole, factor):
            self._split()
            self._keep_apart(factor)
            return
        start = sum(self._lengths[: self._filled])
        for name, whole in _parts(self._whole).items():
            place, part = whole[start : start + factor.samples], getattr(factor, name)
            if place.data_ptr() != part.data_ptr():  # else it was written there
                place.copy_(part)
        self._filled += 1

    @property
    def bytes(self) -> int:
        """Bytes of what is kept."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors())

    def tensors(self) -> list[torch.Tensor]:
        """Return every tensor that is kept."""
        kept = [factor for factor in (self._whole, *self._tiles) if factor is not None]
        return [tensor for factor in kept for tensor in _parts(factor).values()]

    def take(self) -> Factor | Tiled:
        """Return the factor of all samples and let go of it.

        Raises:
            UnsupportedModelError: The model has written over an activation since.
        """
        if [_versions(tile) for tile in self._tiles] != self._versions:
            raise UnsupportedModelError(
                "the model writes the activations of later samples over those of earlier ones (a buffer that every "
                "forward pass reuses?), so the Jacobian of the earlier ones is lost; let forward() clone() what it "
                "reads from that buffer"
            )
        whole = self._whole if self._whole is not None else self._joined()
        self._whole, self._tiles, self._versions = None, [], []
        return whole

    def _keep_apart(self, factor: Factor | None) -> None:
        self._tiles.append(factor)
        self._versions.append(_versions(factor))

    def _joined(self) -> Factor | Tiled:
        tiles = self._tiles
        if self._in_slices and all(isinstance(tile, Outer) and _alike(tiles[0], tile) for tile in tiles):
            return Tiled(tuple(tiles))
        return concat(tiles, self._lengths)

    def _place(self, factor: Outer | Conv) -> torch.Tensor | None:
        """Return where the next tile's Jacobian goes; None where there is no such place."""
        shape = (factor.g.shape[1], *factor.shape)
        if len(self._lengths) == 1:
            return room((factor.samples, *shape), factor.g.dtype, factor.g.device)
        if self._tiles:
            return None
        if self._whole is None:
            self._whole = Dense(room((sum(self._lengths), *shape), factor.g.dtype, factor.g.device))
        if not isinstance(self._whole, Dense) or self._whole.jacobian.shape[1:] != shape:
            return None
        start = sum(self._lengths[: self._filled])
        return self._whole.jacobian[start : start + factor.samples]

    def _split(self) -> None:
        """Go over to keeping tiles apart."""
        if self._whole is None:
            return
        bounds = [sum(self._lengths[:k]) for k in range(self._filled + 1)]
        self._tiles = [_piece(self._whole, slice(a, b)) for a, b in pairwise(bounds)]
        self._versions = [_versions(tile) for tile in self._tiles]
        self._whole = None


def _parts(factor: Factor) -> dict[str, torch.Tensor]:
    values = {f.name: getattr(factor, f.name) for f in fields(factor)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def _versions(factor: Factor | None) -> list[int]:
    """Return how often each of a factor's tensors was written to in place."""
    return [] if factor is None else [tensor._version for tensor in _parts(factor).values()]


def _room(factor: Factor, samples: int) -> Factor:
    """Return an empty factor like `factor` for more samples."""
    return replace(factor, **{k: room((samples, *t.shape[1:]), t.dtype, t.device) for k, t in _parts(factor).items()})


def _piece(factor: Factor, piece: slice) -> Factor:
    return replace(factor, **{name: t[piece] for name, t in _parts(factor).items()})


def _alike(whole: Factor, factor: Factor) -> bool:
    if type(whole) is not type(factor):
        return False
    shapes = ([t.shape[1:] for t in _parts(f).values()] for f in (whole, factor))
    settings = ({f.name: getattr(x, f.name) for f in fields(x) if f.name not in _parts(x)} for x in (whole, factor))
    return len({str(s) for s in shapes}) == 1 and len({str(s) for s in settings}) == 1
