"""Factors: compact forms of the per-sample Jacobian J[n, c] of one parameter.

| factor | J[n, c] | stored |
|---|---|---|
| `Outer` | sum_t g[n,c,t] a[n,t]^T, or its transpose | a [N,T,d], g [N,C,T,p] |
| `Tiled` | the same, for tiles of samples that lie apart | the tiles |
| `Conv` | the weight gradient of a convolution | x [N,Cin,*], g [N,C,Cout,*] |
| `Lookup` | rows of a table: sum_t e(token[n,t]) g[n,c,t]^T | tokens [N,T], g [N,C,T,p] |
| `Dense` | itself | J [N,C,*shape] |

Every factor can be materialised (`dense`). `combine` joins the uses of one parameter, `concat` the tiles of samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch

from twophase_fast import ops
from twophase_fast._types import Precision


@dataclass(frozen=True)
class Dense:
    """A materialised Jacobian, J [N, C, *shape]."""

    jacobian: torch.Tensor
    kind = "dense"

    @property
    def operand(self) -> torch.Tensor:
        """What is stored per sample: J."""
        return self.jacobian

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """Positions, inputs and outputs: (1, 0, 0), there are none left."""
        return 1, 0, 0

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return self.jacobian.shape[0]

    def to(self, dtype: torch.dtype) -> Dense:
        """Return the factor with its floating-point parts in `dtype`."""
        return Dense(self.jacobian.to(dtype))

    def dense(self) -> torch.Tensor:
        """Return J [N, C, *shape]."""
        return self.jacobian

    def rows(self) -> torch.Tensor:
        """Return J as [N, C, P]."""
        return self.jacobian.reshape(*self.jacobian.shape[:2], -1)

    def add(self, other: Dense) -> Dense:
        """Return the factor of the sum of both uses (reuses this factor's memory)."""
        return Dense(self.jacobian.add_(other.jacobian))


@dataclass(frozen=True)
class Outer:
    """J[n,c] = sum_t g[n,c,t] a[n,t]^T of shape [p, d], or [d, p] where `transposed`.

    `shape` is the parameter's own shape, a reshape of [p, d] (or [d, p]).
    """

    a: torch.Tensor
    g: torch.Tensor
    shape: torch.Size
    transposed: bool = False
    kind = "outer"

    @property
    def operand(self) -> torch.Tensor:
        """The layer's inputs a."""
        return self.a

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return self.a.shape[0]

    def to(self, dtype: torch.dtype) -> Outer:
        """Return the factor with its floating-point parts in `dtype`."""
        return replace(self, a=self.a.to(dtype), g=self.g.to(dtype))

    def dense(self, *, out: torch.Tensor | None = None, precision: Precision = "highest") -> torch.Tensor:
        """Return J [N, C, *shape], in `out` where one is given."""
        if out is None or self.transposed:
            jacobian = ops.per_sample_grad(self.a, self.g, precision=precision)
            jacobian = jacobian.transpose(2, 3) if self.transposed else jacobian
            jacobian = jacobian.reshape(*jacobian.shape[:2], *self.shape)
            return jacobian if out is None else out.copy_(jacobian)
        place = out.view(*out.shape[:2], self.g.shape[3], self.a.shape[2])
        ops.per_sample_grad(self.a, self.g, out=place, precision=precision)
        return out

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """Positions T, inputs d and outputs p."""
        return self.a.shape[1], self.a.shape[2], self.g.shape[3]

    def channel_slices(self, limit: int) -> Iterator[slice]:
        """Yield slices of the p outputs whose Jacobian takes at most `limit` bytes (one output at least)."""
        per_channel = self.samples * self.g.shape[1] * self.a.shape[2] * self.a.element_size()
        yield from _even_slices(self.g.shape[3], limit // max(per_channel, 1))

    def slice_elements(self, channels: slice) -> int:
        """Return the number of elements of the Jacobian of some outputs."""
        return self.samples * self.g.shape[1] * (channels.stop - channels.start) * self.a.shape[2]

    def jacobian_slice(self, channels: slice, place: torch.Tensor, precision: Precision = "highest") -> torch.Tensor:
        """Return the Jacobian of some outputs in `place`, [N, C, P], entries in the order (output, input)."""
        shape = (self.samples, self.g.shape[1], channels.stop - channels.start, self.a.shape[2])
        out = place[: self.slice_elements(channels)].view(shape)
        return ops.per_sample_grad(self.a, self.g[..., channels], out=out, precision=precision).flatten(2)

    def joins(self, other: Outer) -> bool:
        """Return whether both uses have the same roles, so that they join along T."""
        same = self.shape == other.shape and self.transposed == other.transposed
        return same and self.a.shape[-1] == other.a.shape[-1]

    def join(self, other: Outer) -> Outer:
        """Return both uses of one parameter joined along positions: T = T1 + T2."""
        return replace(self, a=torch.cat([self.a, other.a], 1), g=torch.cat([self.g, other.g], 2))


@dataclass(frozen=True)
class Tiled:
    """An `Outer` whose tiles of samples lie apart; its Jacobian is made tile by tile, in slices of outputs."""

    parts: tuple[Outer, ...]
    kind = "outer"

    @property
    def operand(self) -> torch.Tensor:
        """The layer's inputs a of the first tile."""
        return self.parts[0].a

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return sum(part.samples for part in self.parts)

    def channel_slices(self, limit: int) -> Iterator[slice]:
        """Yield slices of the p outputs whose Jacobian takes at most `limit` bytes (one output at least)."""
        yield from self.parts[0].channel_slices(limit * self.parts[0].samples // self.samples)

    def slice_elements(self, channels: slice) -> int:
        """Return the number of elements of the Jacobian of some outputs."""
        return sum(part.slice_elements(channels) for part in self.parts)

    def jacobian_slice(self, channels: slice, place: torch.Tensor, precision: Precision = "highest") -> torch.Tensor:
        """Return the Jacobian of some outputs in `place`, [N, C, P], entries in the order (output, input)."""
        start = 0
        for part in self.parts:
            part.jacobian_slice(channels, place[start:], precision)
            start += part.slice_elements(channels)
        return place[:start].view(self.samples, self.parts[0].g.shape[1], -1)


@dataclass(frozen=True)
class Conv:
    """The weight's Jacobian of a convolution: x [N,Cin,*spatial], g [N,C,Cout,*out]."""

    x: torch.Tensor
    g: torch.Tensor
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    kind = "conv"

    @property
    def operand(self) -> torch.Tensor:
        """The layer's inputs x."""
        return self.x

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return self.x.shape[0]

    @property
    def shape(self) -> torch.Size:
        """Shape [Cout, Cin/groups, *kernel] of the weight."""
        return torch.Size((self.g.shape[2], self.x.shape[1] // self.groups, *self.kernel_size))

    def to(self, dtype: torch.dtype) -> Conv:
        """Return the factor with its floating-point parts in `dtype`."""
        return replace(self, x=self.x.to(dtype), g=self.g.to(dtype))

    def dense(
        self,
        channels: slice = slice(None),
        out: torch.Tensor | None = None,
        precision: Precision = "highest",
    ) -> torch.Tensor:
        """Return J [N, C, Cout, Cin/groups, *kernel], or only the output `channels` of it (groups = 1)."""
        return ops.per_sample_conv_grad(
            self.x,
            self.g[:, :, channels],
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            out=out,
            precision=precision,
        )

    @property
    def unfolds(self) -> bool:
        """Whether the factor can be written with explicit patches: two spatial axes, one group."""
        return self.groups == 1 and self.x.dim() == 4

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """Positions T, inputs d of one group and outputs p."""
        return self.g[0, 0, 0].numel(), self.shape[1:].numel(), self.g.shape[2]

    def channel_slices(self, limit: int) -> Iterator[slice]:
        """Yield slices of output channels whose Jacobian takes at most `limit` bytes (all of them with groups)."""
        per_channel = self.samples * self.g.shape[1] * self.shape[1:].numel() * self.x.element_size()
        step = limit // max(per_channel, 1) if self.groups == 1 else self.g.shape[2]
        yield from _even_slices(self.g.shape[2], step)

    def slice_elements(self, channels: slice) -> int:
        """Return the number of elements of the Jacobian of some output channels."""
        return self.samples * self.g.shape[1] * (channels.stop - channels.start) * self.shape[1:].numel()

    def jacobian_slice(self, channels: slice, place: torch.Tensor, precision: Precision = "highest") -> torch.Tensor:
        """Return the Jacobian of some output channels in `place`, [N, C, P]."""
        shape = (self.samples, self.g.shape[1], channels.stop - channels.start, *self.shape[1:])
        return self.dense(channels, place[: self.slice_elements(channels)].view(shape), precision).flatten(2)

    def unfold(self) -> Outer:
        """Return the same factor with explicit patches (groups = 1, two spatial axes), in the axes' own strides."""
        patches = torch.nn.functional.unfold(
            self.x, self.kernel_size, dilation=self.dilation, padding=self.padding, stride=self.stride
        )
        n, c, p = self.g.shape[:3]
        return Outer(patches.transpose(1, 2), self.g.reshape(n, c, p, -1).transpose(2, 3), self.shape)


@dataclass(frozen=True)
class Lookup:
    """Rows of a table: J[n,c][v] = sum_t [tokens[n,t] = v] g[n,c,t]; the token V (no row) contributes nothing."""

    tokens: torch.Tensor
    g: torch.Tensor
    shape: torch.Size
    kind = "lookup"

    @property
    def operand(self) -> torch.Tensor:
        """The tokens."""
        return self.tokens

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """Positions T, inputs (0: none) and outputs p."""
        return self.tokens.shape[1], 0, self.g.shape[3]

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return self.tokens.shape[0]

    def to(self, dtype: torch.dtype) -> Lookup:
        """Return the factor with its floating-point parts in `dtype`."""
        return replace(self, g=self.g.to(dtype))

    def dense(self) -> torch.Tensor:
        """Return J [N, C, V, p]."""
        n, c, t, p = self.g.shape
        jacobian = self.g.new_zeros(n, c, self.shape[0] + 1, p)
        jacobian.scatter_add_(2, self.tokens[:, None, :, None].expand(n, c, t, p), self.g)
        return jacobian[:, :, :-1]

    def joins(self, other: Lookup) -> bool:
        """Return whether both uses read the same table."""
        return self.shape == other.shape

    def join(self, other: Lookup) -> Lookup:
        """Return both uses of one table joined along positions."""
        tokens = torch.cat([self.tokens, other.tokens], 1)
        return replace(self, tokens=tokens, g=torch.cat([self.g, other.g], 2))


Factor = Dense | Outer | Conv | Lookup


def combine(factors: Sequence[Factor]) -> Factor:
    """Return one factor for all uses of a parameter, exactly.

    Uses in the same roles are joined along T; otherwise the Jacobians are added before any Gram product.
    """
    first, *rest = factors
    for other in rest:
        if type(first) is type(other) and isinstance(first, Outer | Lookup) and first.joins(other):
            first = first.join(other)
        else:
            first = Dense(first.dense().clone()).add(Dense(other.dense()))
    return first


def first_samples(factor: Factor, count: int) -> Factor:
    """Return the factor of the first `count` samples (any dataclass of tensors with a leading sample axis)."""
    tensors = {f.name: getattr(factor, f.name) for f in fields(factor)}
    return replace(factor, **{name: t[:count] for name, t in tensors.items() if isinstance(t, torch.Tensor)})


def stored_bytes(factor: Factor) -> int:
    """Return the bytes a factor keeps alive."""
    parts = (factor.jacobian,) if isinstance(factor, Dense) else (factor.operand, factor.g)
    return sum(t.numel() * t.element_size() for t in parts)


def shrinks(factor: Factor) -> bool:
    """Return whether the factor takes less memory once it is materialised."""
    if isinstance(factor, Dense | Lookup):
        return False
    return factor.samples * factor.g.shape[1] * factor.shape.numel() * factor.g.element_size() < stored_bytes(factor)


def concat(factors: Sequence[Factor | None], sizes: Sequence[int]) -> Factor:
    """Return one factor for the samples of several tiles, in order; None stands for a tile without this parameter.

    Tiles in different forms are materialised; rows with fewer positions are padded with zeros.
    """
    present = [f for f in factors if f is not None]
    if len(factors) == 1:
        return present[0]
    same = len(present) == len(factors) and len({type(f) for f in factors}) == 1
    if not same or isinstance(present[0], Dense):
        shape = present[0].dense().shape[1:]
        blocks = [f.dense() if f is not None else _zeros(present[0], (n, *shape)) for f, n in zip(factors, sizes)]
        return Dense(torch.cat(blocks))
    if isinstance(present[0], Conv):
        return replace(present[0], x=torch.cat([f.x for f in present]), g=torch.cat([f.g for f in present]))
    left, empty = ("tokens", present[0].shape[0]) if isinstance(present[0], Lookup) else ("a", 0)
    positions = max(f.g.shape[2] for f in present)
    g = torch.cat([_padded(f.g, 2, positions, 0) for f in present])
    return replace(
        present[0], g=g, **{left: torch.cat([_padded(getattr(f, left), 1, positions, empty) for f in present])}
    )


def _zeros(factor: Factor, shape: tuple[int, ...]) -> torch.Tensor:
    like = factor.jacobian if isinstance(factor, Dense) else factor.g
    return like.new_zeros(shape)


def _padded(tensor: torch.Tensor, axis: int, size: int, value: int) -> torch.Tensor:
    """Return `tensor` with `axis` filled up to `size`."""
    if tensor.shape[axis] == size:
        return tensor
    shape = list(tensor.shape)
    shape[axis] = size - shape[axis]
    return torch.cat([tensor, tensor.new_full(shape, value)], axis)


def _even_slices(size: int, step: int) -> Iterator[slice]:
    """Yield the fewest slices of at most `step` (at least 1) entries, of nearly equal size."""
    count = -(-size // max(step, 1))
    bounds = [size * k // count for k in range(count + 1)]
    yield from (slice(a, b) for a, b in itertools.pairwise(bounds))
