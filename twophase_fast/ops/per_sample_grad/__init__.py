"""`per_sample_grad`, `per_sample_conv_grad`: gradients per sample and cotangent of linear maps and convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twophase_fast._types import Backend, InputError, Precision
from twophase_fast.ops import _checks, _dispatch, _library, _operands
from twophase_fast.ops._triton.backend import lazy, refuses
from twophase_fast.ops.per_sample_grad import cpu, reference


def per_sample_grad(
    a: torch.Tensor,
    g: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Return the per-sample gradients of z_t = W a_t with respect to W: out[n,c,i,j] = Σ_t g[n,c,t,i] a[n,t,j].

    Operands may have any strides and are only read.

    Args:
        a: Inputs of the layer `[N, T, d]`, float32 or float64.
        g: Cotangents at its outputs `[N, C, T, p]`, dtype and device of `a`.
        out: Where to write the result `[N, C, p, d]`: any strides with a contiguous last axis, such as the columns of
            this layer in a Jacobian `[N·C, P]`; what it held is overwritten. None: new memory.
        precision: `"highest"` IEEE arithmetic of the dtype; `"high"` and `"medium"` allow split or reduced products
            where the hardware has them.
        backend: `"reference"`, `"cpu"`, `"triton"`, or None for the first that fits.

    Returns:
        The gradients `[N, C, p, d]`, dtype and device of `a`, without gradient; `out` itself if it was given.

    Raises:
        InputError: Wrong rank, shape, dtype, device or precision, or `out` cannot be written in place.
        BackendError: The named backend cannot run on these inputs.
    """
    _checks.precision(precision)
    _operands.operand("a", a, "N T d")
    _operands.operand("g", g, "N C T p")
    _checks.floating("a", a)
    _checks.alike("g", g, "a", a)
    _operands.same_size("samples (first axis)", ("a", a.shape[0]), ("g", g.shape[0]))
    _operands.same_size("positions", ("a", a.shape[1]), ("g", g.shape[2]))
    inputs = (_operands.plain(a), _operands.plain(g), precision, backend or "")
    if out is None:
        return torch.ops.twophase_fast.per_sample_grad(*inputs)
    _check_out(out, reference.linear_shape(a, g), "[N, C, p, d]", ("a", a))
    torch.ops.twophase_fast.per_sample_grad_out(out, *inputs)
    return out


def per_sample_conv_grad(
    x: torch.Tensor,
    g: torch.Tensor,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    out: torch.Tensor | None = None,
    precision: Precision = "highest",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Return the per-sample gradients of a 1-D, 2-D or 3-D convolution with respect to its weight.

    out[n,c,o,i,k] = Σ_q g[n,c,o,q] x[n, i + first input channel of o's group, q·stride + k·dilation − padding], with
    x zero outside its bounds; q runs over output positions and k over the taps of the kernel. For another padding
    mode pad x first and pass padding=0. Operands may have any strides and are only read; with groups=1, `g` may hold
    only some of the output channels, and the result is that slice of the gradient.

    Args:
        x: Inputs of the layer `[N, Cin, *spatial]`, float32 or float64.
        g: Cotangents at its outputs `[N, C, Cout, *out_spatial]`, dtype and device of `x`.
        kernel_size: Taps of the kernel, one number or one per spatial axis.
        stride: Step between output positions, likewise.
        padding: Zeros added on both sides of each spatial axis, likewise.
        dilation: Step between taps, likewise.
        groups: Number of groups of channels, as in `torch.nn.Conv2d`.
        out: Where to write the result: any strides with contiguous Cin/groups and kernel axes; what it held is
            overwritten. None: new memory.
        precision: As in `per_sample_grad`. On the CPU kernels of 3x3 with stride, dilation and groups 1 go by
            Winograd's minimal filtering where that takes less work: at `"highest"` with a relative error of at most
            6e-7 (Frobenius norm, float32, random data; plain torch's is 0.4e-7 to 3e-7), with larger tiles at `"high"`
            and `"medium"` of at most 1e-6.
        backend: `"reference"`, `"cpu"`, `"triton"`, or None for the first that fits.

    Returns:
        The gradients `[N, C, Cout, Cin/groups, *kernel]`, dtype and device of `x`, without gradient; `out` itself if
        it was given.

    Raises:
        InputError: Wrong rank, shape, dtype, device or precision, a convolution that contradicts the shapes, or `out`
            cannot be written in place.
        BackendError: The named backend cannot run on these inputs.
    """
    _checks.precision(precision)
    dims = _check_images(x, g)
    numbers = (
        _operands.per_axis("kernel_size", kernel_size, dims, least=1),
        _operands.per_axis("stride", stride, dims, least=1),
        _operands.per_axis("padding", padding, dims, least=0),
        _operands.per_axis("dilation", dilation, dims, least=1),
    )
    _check_groups(x.shape[1], g.shape[2], groups)
    _check_spatial(x, g, numbers)
    inputs = (_operands.plain(x), _operands.plain(g), *numbers, groups, precision, backend or "")
    if out is None:
        return torch.ops.twophase_fast.per_sample_conv_grad(*inputs)
    _check_out(out, reference.conv_shape(x, g, numbers[0], groups), "[N, C, Cout, Cin/groups, *kernel]", ("x", x))
    torch.ops.twophase_fast.per_sample_conv_grad_out(out, *inputs)
    return out


def _check_images(x: torch.Tensor, g: torch.Tensor) -> int:
    """Check the operands of a convolution and return its number of spatial axes.

    Raises:
        InputError: Wrong rank, dtype or device, or other samples.
    """
    _checks.tensor("x", x)
    _checks.tensor("g", g)
    _checks.rank("x", x, (3, 4, 5), "[N, Cin, *spatial] with 1, 2 or 3 spatial axes; unsqueeze a missing sample axis")
    dims = x.ndim - 2
    _checks.rank("g", g, (x.ndim + 1,), f"[N, C, Cout, *out_spatial] with {dims} spatial axes, as x has")
    _checks.floating("x", x)
    _checks.alike("g", g, "x", x)
    _operands.same_size("samples (first axis)", ("x", x.shape[0]), ("g", g.shape[0]))
    return dims


def _check_groups(cin: int, cout: int, groups: int) -> None:
    """Check that the groups divide the channels.

    Raises:
        InputError: They do not.
    """
    if not isinstance(groups, int) or groups < 1 or cin % groups or cout % groups:
        raise InputError(
            f"groups={groups!r} must divide the {cin} input channels of x and the {cout} output channels of g"
        )


def _check_spatial(x: torch.Tensor, g: torch.Tensor, numbers: tuple[tuple[int, ...], ...]) -> None:
    """Check that g has the output positions of the convolution.

    Raises:
        InputError: It has others.
    """
    expected = [
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, padding, dilation in zip(x.shape[2:], *numbers, strict=True)
    ]
    if min(expected) < 1 or list(g.shape[3:]) != expected:
        kernel, stride, padding, dilation = numbers
        raise InputError(
            f"g has the output positions {list(g.shape[3:])}, but x of {list(x.shape[2:])} with kernel_size={kernel}, "
            f"stride={stride}, padding={padding}, dilation={dilation} gives {expected}"
        )


def _check_out(out: torch.Tensor, shape: tuple[int, ...], axes: str, like: tuple[str, torch.Tensor]) -> None:
    """Check that `out` has this shape and contiguous axes from the fourth on.

    Raises:
        InputError: It has not, or cannot be written in place.
    """
    _operands.writable(out, shape, axes, like)
    if out.numel() and not out[0, 0, 0].is_contiguous():
        raise InputError(
            f"out has the strides {out.stride()}, but its axes from the fourth on must be contiguous; write into a "
            "view whose rows are, such as jacobian[:, first:last].view(...)"
        )


_LINEAR = "Tensor a, Tensor g, str precision, str backend"
_CONV = (
    "Tensor x, Tensor g, int[] kernel_size, int[] stride, int[] padding, int[] dilation, int groups, "
    "str precision, str backend"
)
_library.define(f"per_sample_grad({_LINEAR}) -> Tensor", fake=reference.new_linear)
_library.define(f"per_sample_grad_out(Tensor(a!) out, {_LINEAR}) -> ()")
_library.define(f"per_sample_conv_grad({_CONV}) -> Tensor", fake=reference.new_conv)
_library.define(f"per_sample_conv_grad_out(Tensor(a!) out, {_CONV}) -> ()")
_CPU_REFUSALS: dict[str, _dispatch.Refusal] = {
    "per_sample_grad": cpu.refuses,
    "per_sample_grad_out": cpu.refuses,
    "per_sample_conv_grad": cpu.refuses_conv,
    "per_sample_conv_grad_out": cpu.refuses_conv_out,
}
for _name, _refuses in _CPU_REFUSALS.items():
    _dispatch.add(
        _name,
        reference=getattr(reference, _name),
        cpu=getattr(cpu, _name),
        cpu_refuses=_refuses,
        triton=lazy("per_sample_grad", _name),
        triton_refuses=refuses,
    )
