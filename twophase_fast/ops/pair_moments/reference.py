"""Pair moments in plain torch, float64: the definition."""

from __future__ import annotations

import torch

FIELDS = ("xy", "xx", "yy", "dd", "dx", "ds", "max_abs_d", "changed")


def pair_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], runs: int) -> torch.Tensor:
    """Return `[R, S, L, 8]`: the moments of every run of `xs` against every run of `ys`, tensor by tensor.

    An empty `ys` stands for all pairs of `xs`.
    """
    left = _by_run(xs, runs)
    right = left if not ys else [ys]
    rows = [torch.stack([_moments(x, y) for x, y in zip(a, b)]) for a in left for b in right]
    return torch.stack(rows).view(len(left), len(right), -1, len(FIELDS))


def residual_moments(xs: list[torch.Tensor], ys: list[torch.Tensor], scale: float) -> torch.Tensor:
    """Return `[L, 2]`: ‖e‖² and <e, x> with e = y − scale·x, the product and the difference rounded once."""
    return torch.stack([_residual(x, y, scale) for x, y in zip(xs, ys)])


def _by_run(tensors: list[torch.Tensor], runs: int) -> list[list[torch.Tensor]]:
    per_run = len(tensors) // runs
    return [tensors[run * per_run : (run + 1) * per_run] for run in range(runs)]


def _moments(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x, y = x.double().flatten(), y.double().flatten()
    d = y - x
    largest = d.abs().max() if d.numel() else d.new_zeros(())
    changed = (d != 0).sum().double()
    return torch.stack([x.dot(y), x.dot(x), y.dot(y), d.dot(d), d.dot(x), d.dot(x + y), largest, changed])


def _residual(x: torch.Tensor, y: torch.Tensor, scale: float) -> torch.Tensor:
    x, y = x.double().flatten(), y.double().flatten()
    product, error = _two_product(x.new_tensor(scale), x)
    e = (y - product) - error
    return torch.stack([e.dot(e), e.dot(x)])


def _two_product(scale: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return p, q with p + q = scale·x exactly (Dekker's product), since torch has no fused multiply-add."""
    product = scale * x
    (scale_high, scale_low), (x_high, x_low) = _halves(scale), _halves(x)
    error = ((scale_high * x_high - product) + scale_high * x_low + scale_low * x_high) + scale_low * x_low
    return product, error


def _halves(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scaled = value * 134217729.0  # 2^27 + 1 splits 53 bits into 26 + 27
    high = scaled - (scaled - value)
    return high, value - high
