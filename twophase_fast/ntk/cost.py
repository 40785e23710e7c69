"""Floating-point operations per pair of samples, and the cheapest exact method for a factor."""

from __future__ import annotations

from typing import Literal

from twophase_fast.rules.factors import Conv, Dense, Factor, Lookup

Method = Literal["factored", "lookup", "materialise"]

_FACTORED_SPEED = 0.7  # throughput of the fused kernel relative to a dense Gram product


def materialised_flops(positions: int, d: int, p: int, outputs: int, samples: int, partners: int, output: str) -> float:
    """Return FLOPs per pair of samples for building J once per sample, then one Gram product.

    full: 2 p d C^2, else 2 p d C; building J costs 2 C T p d per sample, shared by its partners.
    """
    classes = outputs**2 if output == "full" else outputs
    build = 2 * outputs * positions * p * d * (1 / samples + 1 / partners)
    return 2 * p * d * classes + build


def factored_flops(t: int, s: int, d: int, p: int, outputs: int, output: str) -> float:
    """Return FLOPs per pair of samples of sum_{t,s} (a.a')(g.g'): 2 T S (d + C^2 p) for full, else 2 T S (d + C p)."""
    classes = outputs**2 if output == "full" else outputs
    return 2 * t * s * (d + classes * p)


def choose(left: Factor, right: Factor | None, output: str, *, samples: int = 0, partners: int = 0) -> Method:
    """Return the cheapest method for the Gram block of one parameter.

    `samples` and `partners` say how many samples each side will have in all; default: as many as the factors hold.
    """
    if isinstance(left, Lookup):
        return "lookup"
    if isinstance(left, Dense) or (isinstance(left, Conv) and not left.unfolds):
        return "materialise"
    other = left if right is None else right
    t, d, p = left.dimensions
    s, outputs = other.dimensions[0], left.g.shape[1]
    size = samples or left.samples, partners or other.samples
    dense = materialised_flops(max(t, s), d, p, outputs, *size, output)
    return "factored" if factored_flops(t, s, d, p, outputs, output) / _FACTORED_SPEED < dense else "materialise"
