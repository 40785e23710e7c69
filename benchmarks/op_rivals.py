"""The ops as one would write them in plain torch, in float32: what our kernels have to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.accuracy import WRONG
from twophase_fast.ops._case import Inputs, Sizes

WRONG_SUMS = 0.05  # torch's norm and dot of 64 M elements lose 6e-3 in float32
MOST_BYTES = 2 << 30  # of one intermediate


@dataclass(frozen=True)
class Rival:
    """One formulation of an op.

    Attributes:
        name: Of the row.
        call: Takes the op's inputs; returns tensors.
        values: Makes of those the values that are compared.
        picks: Which of the true values these are; None for all.
        fits: Whether its intermediates have a reasonable size.
        wrong: Relative error beyond which it is a mistake, not the rounding of this formulation.
    """

    name: str
    call: Callable[[Inputs], Sequence[torch.Tensor]]
    values: Callable[[Sequence[torch.Tensor]], list[torch.Tensor]] = list
    picks: Sequence[int] | None = None
    fits: Callable[[Sizes], bool] = lambda _: True
    wrong: float = WRONG


def _matmul(inputs: Inputs) -> list[torch.Tensor]:
    x, y = inputs["x"], inputs["y"]
    return [x @ (x if y is None else y).mT]


def _by_samples(matrix: torch.Tensor, samples: int) -> torch.Tensor:
    """Rows and columns (sample, output) to `[N, N, C, C]`."""
    return matrix.view(samples, -1, samples, matrix.shape[1] // samples).transpose(1, 2)


def _materialised(inputs: Inputs) -> list[torch.Tensor]:
    """The Jacobian J[n, c] = Σ_t g aᵀ by a batched product, then J Jᵀ."""
    a, g = inputs["a"], inputs["g"]
    jacobian = (g.mT @ a.unsqueeze(1)).flatten(2).flatten(0, 1)
    return [_by_samples(jacobian @ jacobian.T, len(a))]


def _factored(inputs: Inputs) -> list[torch.Tensor]:
    """All dot products of positions, (a·a') and (g·g'), then their products summed over positions."""
    a, g = inputs["a"], inputs["g"]
    samples, outputs, positions, _ = g.shape
    flat_a, flat_g = a.flatten(0, 1), g.flatten(0, 2)
    weights = (flat_a @ flat_a.T).view(samples, 1, positions, samples, 1, positions)
    products = (flat_g @ flat_g.T).view(samples, outputs, positions, samples, outputs, positions)
    return [products.mul_(weights).sum((2, 5)).transpose(1, 2)]


def _half_factored(inputs: Inputs) -> list[torch.Tensor]:
    """H[n, m, t] = Σ_s (a·a') g', then the dot products of g with H: two batched products."""
    a, g = inputs["a"], inputs["g"]
    samples, outputs, positions, _ = g.shape
    weights = torch.einsum("ntd,msd->nmts", a, a)
    h = weights @ g.transpose(1, 2).reshape(samples, positions, -1)  # [N, M, T, C·p]
    h = h.view(samples, samples, positions, outputs, -1).permute(0, 2, 4, 1, 3).reshape(samples, -1, samples * outputs)
    return [torch.bmm(g.flatten(2), h).view(samples, outputs, samples, outputs).transpose(1, 2)]


def _norms_and_dot(inputs: Inputs) -> list[torch.Tensor]:
    """Per run and tensor ‖x‖, ‖y‖, ‖y − x‖ and <x, y> by four calls: not all that the op gives."""
    found = [
        torch.stack([x.norm(), y.norm(), (y - x).norm(), torch.dot(x.flatten(), y.flatten())])
        for run in inputs["xs"]
        for x, y in zip(run, inputs["ys"])
    ]
    return [torch.stack(found).view(len(inputs["xs"]), -1, 4)]


def _as_moments(found: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    x, y, d, xy = found[0].double().unbind(-1)
    return [x**2, y**2, d**2, 1 + xy / (x * y)]


def _convolution_backward(inputs: Inputs) -> list[torch.Tensor]:
    """The gradient with respect to the input alone; its values do not matter, only its layout."""
    g, weight = inputs["g"], inputs["weight"]
    x = g.new_empty(len(g), weight.shape[1], *inputs["size"])
    steps = (list(inputs["stride"]), list(inputs["padding"]), [1, 1], False, [0, 0], 1)
    return [torch.ops.aten.convolution_backward(g, x, weight, None, *steps, [True, False, False])[0]]


def _per_sample(inputs: Inputs) -> list[torch.Tensor]:
    return [inputs["g"].mT @ inputs["a"].unsqueeze(1)]


def _per_sample_conv(inputs: Inputs) -> list[torch.Tensor]:
    """Patches, then a product per sample and output."""
    x, g, kernel = inputs["x"], inputs["g"], tuple(inputs["kernel_size"])
    patches = torch.nn.functional.unfold(x, kernel, padding=tuple(inputs["padding"]))
    return [(g.flatten(3) @ patches.mT.unsqueeze(1)).unflatten(3, (x.shape[1], *kernel))]


def _linear_backward(inputs: Inputs) -> list[torch.Tensor]:
    """In place where it may be: a product, times the derivative, plus what is there."""
    pulled = inputs["g"] @ inputs["weight"]
    if inputs["scale"] is not None:
        pulled *= inputs["scale"].unsqueeze(1)
    return [pulled.add_(inputs["out"]) if inputs["add"] else pulled]


def _batch_norm_backward(inputs: Inputs) -> list[torch.Tensor]:
    """What the ReLU lets pass of g, times weight / sigma; its sums over positions, with the normalised x and alone."""
    g, x, relu = inputs["g"], inputs["x"], inputs["relu"]
    g = torch.where(relu.unsqueeze(1) > 0, g, 0)
    mean, rstd, weight = (inputs[name].view(-1, *[1] * (x.dim() - 2)) for name in ("mean", "rstd", "weight"))
    axes = tuple(range(3, g.dim()))
    return [g * (weight * rstd), (g * ((x - mean) * rstd).unsqueeze(1)).sum(axes), g.sum(axes)]


def _layer_norm_backward(inputs: Inputs) -> list[torch.Tensor]:
    """Its own backward for all cotangents together (the sums it makes are of no use), and the sums per sample."""
    g, x = inputs["g"], inputs["x"]
    mean, rstd = (inputs[name].unsqueeze(-1) for name in ("mean", "rstd"))
    wide = [tensor.unsqueeze(1).expand(*g.shape[:3], -1).contiguous() for tensor in (x, mean, rstd)]
    mask = [True, False, False]
    pulled = torch.ops.aten.native_layer_norm_backward(g, wide[0], g.shape[3:], *wide[1:], inputs["weight"], None, mask)
    return [pulled[0], (g * ((x - mean) * rstd).unsqueeze(1)).sum(2), g.sum(2)]


def _batched_product(inputs: Inputs) -> list[torch.Tensor]:
    return [inputs["left"] @ inputs["right"]]


RIVALS: dict[str, tuple[Rival, ...]] = {
    "gram": (Rival("torch x @ y.T", _matmul),),
    "factored_gram": (
        Rival("torch materialised", _materialised, fits=lambda s: 4 * s["n"] * s["c"] * s["p"] * s["d"] <= MOST_BYTES),
        Rival("torch factored", _factored, fits=lambda s: 4 * (s["n"] * s["c"] * s["t"]) ** 2 <= MOST_BYTES),
        Rival(
            "torch half-factored",
            _half_factored,
            fits=lambda s: 4 * s["n"] ** 2 * s["t"] * s["c"] * s["p"] <= MOST_BYTES,
        ),
    ),
    "per_sample_grad": (Rival("torch batched product", _per_sample),),
    "per_sample_conv_grad": (
        Rival(
            "torch patches and product", _per_sample_conv, fits=lambda s: s["n"] * s["c"] * s["p"] * s["d"] < 1 << 28
        ),
    ),
    "linear_input_grad_": (Rival("torch product", _linear_backward),),
    "batch_norm_grad": (Rival("torch element-wise", _batch_norm_backward),),
    "layer_norm_grad": (Rival("torch backward and sums", _layer_norm_backward),),
    "batched_product_": (Rival("torch matmul", _batched_product),),
    "conv_input_grad": (Rival("torch convolution_backward", _convolution_backward),),
    "pair_moments": (Rival("torch norms and dot", _norms_and_dot, _as_moments, (0, 1, 2, 5), wrong=WRONG_SUMS),),
}
"""Op -> its formulations."""


def rivals(op: str, sizes: Sizes) -> list[Rival]:
    """Formulations of an op that are reasonable at these sizes."""
    return [rival for rival in RIVALS.get(op, ()) if rival.fits(sizes)]
