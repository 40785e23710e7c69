"""`conv_input_grad`, `conv_input_grad_`: cotangents pulled back through a convolution, to its input."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twophase_fast._types import Backend, InputError, Precision
from twophase_fast.ops import _checks, _dispatch, _library, _operands
from twophase_fast.ops.conv_input_grad import cpu, library, reference


def conv_input_grad(
    g: torch.Tensor,
    weight: torch.Tensor,
    size: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Return the gradient of a 1-D, 2-D or 3-D convolution with respect to its input, for many cotangents at once.

    out[b,i,y] = Σ_{o,k} g[b,o,q] weight[o,i,k] over the positions q with q·stride + k·dilation − padding = y, where o
    runs over the output channels of i's group. B counts images, such as samples times cotangents of each. For
    another padding mode pull back through the padding separately. Operands may have any strides and are only read;
    images that are contiguous are read in place.

    On the CPU, kernels of 3x3 with stride, dilation and groups 1 are mostly applied by Winograd's algorithm; there an
    infinite or NaN cotangent may also spoil results up to three places away from those it reaches.

    Args:
        g: Cotangents at the outputs `[B, Cout, *out_spatial]`, float32 or float64.
        weight: Kernel of the convolution `[Cout, Cin/groups, *kernel]`, dtype and device of `g`.
        size: Spatial extent of the input, one number per axis; several extents can give the same `out_spatial`.
        stride: Step between output positions, one number or one per spatial axis.
        padding: Zeros added on both sides of each spatial axis, likewise.
        dilation: Step between taps, likewise.
        groups: Number of groups of channels, as in `torch.nn.Conv2d`.
        precision: `"highest"`: in float32 a relative error of 2e-7 to 3e-7 (Frobenius norm, random data; plain torch's
            is 2e-7). `"high"` and `"medium"` allow larger tiles of Winograd's on the CPU, with a relative error below
            1e-6. On a GPU they run as `"highest"`: through many layers the errors of TF32 would add up.
        backend: `"reference"`, `"cpu"`, `"library"`, or None for the first that fits. There is no Triton version: a
            GPU runs `"library"`, cuDNN's own pull-back.

    Returns:
        The gradients `[B, Cin, *size]`, contiguous, dtype and device of `g`, without gradient.

    Raises:
        InputError: Wrong rank, shape, dtype, device or precision, or a convolution that contradicts the shapes.
        BackendError: The named backend cannot run on these inputs.
    """
    numbers = _check(g, weight, size, stride, padding, dilation, groups, precision)
    inputs = (_operands.plain(g), _operands.plain(weight), tuple(size), *numbers, groups, precision, backend or "")
    return torch.ops.twophase_fast.conv_input_grad(*inputs)


def conv_input_grad_(
    out: torch.Tensor,
    g: torch.Tensor,
    weight: torch.Tensor,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    add: bool = False,
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Write the gradients of `conv_input_grad` to `out`, or add them to what it holds.

    Args:
        out: Where the gradients go `[B, Cin, *spatial]`: any strides, contiguous images being the fast case. Its
            spatial extent is that of the input of the convolution. It may be `g` itself, which is overwritten then (on
            the CPU without a copy, where kernels are 3x3 with stride 1), and shares no other memory with the operands.
        g: Cotangents at the outputs `[B, Cout, *out_spatial]`, dtype and device of `out`.
        weight: Kernel of the convolution `[Cout, Cin/groups, *kernel]`, likewise.
        stride: Step between output positions, one number or one per spatial axis.
        padding: Zeros added on both sides of each spatial axis, likewise.
        dilation: Step between taps, likewise.
        groups: Number of groups of channels.
        add: Whether to add to what `out` holds, such as the cotangents of a parallel branch; else that is never read.
        precision: As in `conv_input_grad`.
        backend: As in `conv_input_grad`.

    Returns:
        `out`.

    Raises:
        InputError: Wrong rank, shape, dtype, device or precision, a convolution that contradicts the shapes, or `out`
            cannot be written in place.
        BackendError: The named backend cannot run on these inputs.
    """
    _checks.tensor("out", out)
    numbers = _check(g, weight, out.shape[2:], stride, padding, dilation, groups, precision)
    _operands.writable(out, _shape(g, weight, out.shape[2:], groups), "[B, Cin, *spatial]", ("g", g))
    inputs = (_operands.plain(g), _operands.plain(weight), *numbers, groups, bool(add), precision, backend or "")
    torch.ops.twophase_fast.conv_input_grad_(out, *inputs)
    return out


def _check(
    g: torch.Tensor,
    weight: torch.Tensor,
    size: Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    precision: str,
) -> tuple[tuple[int, ...], ...]:
    """Check all operands; return stride, padding and dilation per axis.

    Raises:
        InputError: One is wrong.
    """
    _checks.precision(precision)
    dims = _check_tensors(g, weight)
    numbers = (
        _operands.per_axis("stride", stride, dims, least=1),
        _operands.per_axis("padding", padding, dims, least=0),
        _operands.per_axis("dilation", dilation, dims, least=1),
    )
    if not isinstance(groups, int) or groups < 1 or g.shape[1] % groups:
        raise InputError(f"groups={groups!r} must be an integer that divides the {g.shape[1]} output channels of g")
    _check_positions(g, weight, size, numbers)
    return numbers


def _check_tensors(g: torch.Tensor, weight: torch.Tensor) -> int:
    """Check cotangents and kernel; return the number of spatial axes.

    Raises:
        InputError: Wrong rank, dtype or device, an empty kernel, or other output channels.
    """
    _checks.rank("g", _checks.tensor("g", g), (3, 4, 5), "[B, Cout, *out_spatial] with 1, 2 or 3 spatial axes")
    _checks.tensor("weight", weight)
    _checks.rank("weight", weight, (g.ndim,), f"[Cout, Cin/groups, *kernel] with {g.ndim - 2} spatial axes, as g has")
    _checks.floating("g", g)
    _checks.alike("weight", weight, "g", g)
    _operands.same_size("output channels", ("g", g.shape[1]), ("weight", weight.shape[0]))
    if min(weight.shape) < 1:
        raise InputError(f"weight has shape {tuple(weight.shape)}; expected at least one channel and one tap")
    return g.ndim - 2


def _check_positions(
    g: torch.Tensor, weight: torch.Tensor, size: Sequence[int], numbers: Sequence[Sequence[int]]
) -> None:
    """Check that an input of this size has the output positions of g.

    Raises:
        InputError: It has others, or `size` is no extent.
    """
    dims = g.ndim - 2
    if len(size) != dims or not all(isinstance(extent, int) and extent > 0 for extent in size):
        raise InputError(f"the input's size {tuple(size)} must be {dims} integers ≥ 1, one per spatial axis of g")
    expected = [
        (extent + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for extent, kernel, stride, padding, dilation in zip(size, weight.shape[2:], *numbers, strict=True)
    ]
    if min(expected) < 1 or list(g.shape[2:]) != expected:
        stride, padding, dilation = numbers
        raise InputError(
            f"g has the output positions {list(g.shape[2:])}, but an input of {list(size)} with a kernel of "
            f"{list(weight.shape[2:])}, stride={stride}, padding={padding}, dilation={dilation} gives {expected}"
        )


def _shape(g: torch.Tensor, weight: torch.Tensor, size: Sequence[int], groups: int) -> tuple[int, ...]:
    return (g.shape[0], weight.shape[1] * groups, *size)


def _fake(
    g: torch.Tensor,
    weight: torch.Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    precision: str,
    backend: str,
) -> torch.Tensor:
    return g.new_empty(_shape(g, weight, size, groups))


_GEOMETRY = "int[] stride, int[] padding, int[] dilation, int groups"
_library.define(
    f"conv_input_grad(Tensor g, Tensor weight, int[] size, {_GEOMETRY}, str precision, str backend) -> Tensor",
    fake=_fake,
)
_library.define(
    f"conv_input_grad_(Tensor(a!) out, Tensor g, Tensor weight, {_GEOMETRY}, bool add, str precision, str backend) "
    "-> ()"
)
_dispatch.add(
    "conv_input_grad",
    reference=reference.conv_input_grad,
    cpu=cpu.conv_input_grad,
    cpu_refuses=cpu.refuses,
    library=library.conv_input_grad,
)
_dispatch.add(
    "conv_input_grad_",
    reference=reference.conv_input_grad_,
    cpu=cpu.conv_input_grad_,
    cpu_refuses=cpu.refuses_write,
    library=library.conv_input_grad_,
)
