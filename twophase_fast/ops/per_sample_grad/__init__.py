"""Per-sample gradients of linear maps and convolutions, for C cotangents per sample at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twophase_fast._types import InputError
from twophase_fast.ops import _operands as operands
from twophase_fast.ops.per_sample_grad import reference


def per_sample_grad(
    a: torch.Tensor, g: torch.Tensor, *, out: torch.Tensor | None = None, backend: str | None = None
) -> torch.Tensor:
    """Return the per-sample gradients of z_t = W a_t with respect to W.

    out[n,c,i,j] = Σ_t g[n,c,t,i] a[n,t,j]. Operands may have any strides and are only read.

    Args:
        a: Inputs of the layer [N, T, d], float32 or float64.
        g: Cotangents at its outputs [N, C, T, p], dtype and device of `a`.
        out: Where to write the result [N, C, p, d]: any strides with a contiguous last axis, such as the columns of this
            layer in a Jacobian [N·C, P]; what it held is overwritten. None: new memory.
        backend: "reference", "cpu" or "triton"; None takes the first that can run the op.

    Returns:
        The gradients [N, C, p, d] in the dtype of the operands; `out` itself if it was given.

    Raises:
        InputError: An operand has the wrong shape, dtype or device, or `out` does not fit.
        BackendError: No backend can run the op; the message lists every reason.
    """  # noqa: DOC502
    op = "per_sample_grad"
    operands.check_tensor(op, "a", a, "N T d")
    operands.check_tensor(op, "g", g, "N C T p")
    operands.check_same(op, ("a", a), {"g": g})
    operands.check_sizes(op, "samples (first axis)", ("a", a.shape[0]), ("g", g.shape[0]))
    operands.check_sizes(op, "positions", ("a", a.shape[1]), ("g", g.shape[2]))
    out = _output(op, out, (*g.shape[:2], g.shape[3], a.shape[2]), ("a", a))
    with torch.no_grad():
        reference.per_sample_grad(out, a, g)
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
    backend: str | None = None,
) -> torch.Tensor:
    """Return the per-sample gradients of a 1-D, 2-D or 3-D convolution with respect to its weight.

    out[n,c,o,i,k] = Σ_q g[n,c,o,q] x[n, i + first input channel of o's group, q·stride + k·dilation − padding], with x
    zero outside its bounds; q runs over output positions and k over the taps of the kernel. For another padding mode pad x
    first and pass padding=0. Operands may have any strides and are only read; with groups=1, `g` may hold only some of the
    output channels, and the result is that slice of the gradient.

    Args:
        x: Inputs of the layer [N, Cin, *spatial], float32 or float64.
        g: Cotangents at its outputs [N, C, Cout, *out_spatial], dtype and device of `x`.
        kernel_size: Taps of the kernel, one number or one per spatial axis.
        stride: Step between output positions, likewise.
        padding: Zeros added on both sides of each spatial axis, likewise.
        dilation: Step between taps, likewise.
        groups: Number of groups of channels, as in `torch.nn.Conv2d`.
        out: Where to write the result: any strides with contiguous Cin/groups and kernel axes; what it held is overwritten.
            None: new memory.
        backend: "reference", "cpu" or "triton"; None takes the first that can run the op.

    Returns:
        The gradients [N, C, Cout, Cin/groups, *kernel] in the dtype of the operands; `out` itself if it was given.

    Raises:
        InputError: An operand has the wrong shape, dtype or device, the convolution's numbers contradict the shapes, or
            `out` does not fit.
        BackendError: No backend can run the op; the message lists every reason.
    """  # noqa: DOC502
    op = "per_sample_conv_grad"
    dims = _check_images(op, x, g)
    kernel = per_axis(op, "kernel_size", kernel_size, dims, least=1)
    steps = per_axis(op, "stride", stride, dims, least=1)
    margins = per_axis(op, "padding", padding, dims, least=0)
    spacing = per_axis(op, "dilation", dilation, dims, least=1)
    _check_groups(op, x.shape[1], g.shape[2], groups)
    _check_spatial(op, x, g, (kernel, steps, margins, spacing))
    out = _output(op, out, (*g.shape[:3], x.shape[1] // groups, *kernel), ("x", x))
    with torch.no_grad():
        reference.per_sample_conv_grad(out, x, g, steps, margins, spacing, groups)
    return out


def per_axis(op: str, name: str, value: int | Sequence[int], dims: int, least: int) -> tuple[int, ...]:
    """Return one number per spatial axis.

    Raises:
        InputError: `value` is neither one integer nor one per axis, or an integer is below `least`.
    """
    values = (value,) * dims if isinstance(value, int) else value
    fits = isinstance(values, Sequence) and len(values) == dims and all(isinstance(v, int) for v in values)
    if not fits or min(values) < least:
        raise InputError(f"{op}: {name} must be one integer >= {least} or {dims} of them, got {value!r}")
    return tuple(values)


def _check_images(op: str, x: torch.Tensor, g: torch.Tensor) -> int:
    """Check the operands of a convolution and return its number of spatial axes."""
    for name, tensor in (("x", x), ("g", g)):
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"{op}: {name} must be a tensor, got {type(tensor).__name__}")
    dims = x.dim() - 2
    if dims not in {1, 2, 3}:
        raise InputError(
            f"{op}: x must be [N, Cin, *spatial] with 1, 2 or 3 spatial axes, got {operands.describe(x)}; "
            "unsqueeze a missing sample axis"
        )
    operands.check_tensor(op, "g", g, "N C Cout " + " ".join(["H", "W", "D"][:dims]))
    operands.check_same(op, ("x", x), {"g": g})
    operands.check_sizes(op, "samples (first axis)", ("x", x.shape[0]), ("g", g.shape[0]))
    return dims


def _check_groups(op: str, cin: int, cout: int, groups: int) -> None:
    """Check that the groups divide the channels on both sides."""
    if not isinstance(groups, int) or groups < 1 or cin % groups or cout % groups:
        raise InputError(
            f"{op}: groups={groups!r} must divide the {cin} input channels of x and the {cout} output channels of g"
        )


def _check_spatial(op: str, x: torch.Tensor, g: torch.Tensor, numbers: tuple[tuple[int, ...], ...]) -> None:
    """Check that g has the output positions of the convolution."""
    expected = []
    for size, kernel, stride, padding, dilation in zip(x.shape[2:], *numbers, strict=True):
        expected.append((size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
    if min(expected) < 1 or list(g.shape[3:]) != expected:
        kernel, stride, padding, dilation = numbers
        raise InputError(
            f"{op}: g has the output positions {list(g.shape[3:])}, but x of {list(x.shape[2:])} with kernel_size={kernel}, "
            f"stride={stride}, padding={padding}, dilation={dilation} gives {expected}"
        )


def _output(
    op: str, out: torch.Tensor | None, shape: tuple[int, ...], like: tuple[str, torch.Tensor]
) -> torch.Tensor:
    """Return `out` once checked, or new memory of that shape."""
    if out is None:
        return like[1].new_empty(shape)
    operands.check_out(op, out, shape, like)
    inner = shape[3:]
    if out.numel() and out[0, 0, 0].stride() != torch.empty(inner, device="meta").stride():
        raise InputError(
            f"{op}: the last {len(inner)} of the axes {list(shape)} of out must be contiguous, got strides "
            f"{list(out.stride())}; write into a view whose rows are contiguous, such as jacobian[:, first:last].view(...)"
        )
    return out
