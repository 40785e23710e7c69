"""Fully connected network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from twophase_fast.zoo._seeding import seeded


@seeded
def mlp(
    inputs: int = 784, widths: Sequence[int] = (1024, 1024, 1024), outputs: int = 10, *, seed: int = 0
) -> nn.Module:
    """Linear layers with ReLU between them; the input is flattened first.

    Args:
        inputs: Entries per sample, the product of all axes but the first.
        widths: Units of each hidden layer; empty for a linear model.
        outputs: Outputs per sample, C.
        seed: Of the initial weights.

    Returns:
        A module mapping [N, ...] with `inputs` entries per sample to [N, outputs].
    """
    layers: list[nn.Module] = [nn.Flatten(1)]
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
