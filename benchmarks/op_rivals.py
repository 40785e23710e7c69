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
    "conv_input_grad": (Rival("torch convolution_backward", _convolution_backward),),
    "pair_moments": (Rival("torch norms and dot", _norms_and_dot, _as_moments, (0, 1, 2, 5), wrong=WRONG_SUMS),),
}
"""Op -> its formulations."""


def rivals(op: str, sizes: Sizes) -> list[Rival]:
    """Formulations of an op that are reasonable at these sizes."""
    return [rival for rival in RIVALS.get(op, ()) if rival.fits(sizes)]
