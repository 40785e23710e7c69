"""Floating-point operations per pair of samples, and the cheapest exact method for one parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twophase_fast.ntk.calibration import DEFAULT, Rates

PACKED_WIDTH = 2048
"""Columns of narrow Jacobians (biases, norms) that are collected for one product; copying wider ones takes longer."""

Method = Literal["factored", "lookup", "materialise", "structured"]


@dataclass(frozen=True)
class Sizes:
    """One parameter's factor.

    Attributes:
        kind: Form of the factor: `outer`, `conv`, `lookup`, `dense` or `readout`.
        positions: T, positions of the layer joined over its uses (1 for `dense`).
        inputs: d (0 for `dense` and `lookup`).
        outputs: p (0 for `dense`).
        elements: Entries P of the parameter.
        factors: Whether a factored Gram block is possible.
    """

    kind: str
    positions: int
    inputs: int
    outputs: int
    elements: int
    factors: bool

    def gram_flops(self, classes: int, output: str) -> float:
        """Return the dense Gram product's FLOPs per pair: 2 P C^2 for `full`, else 2 P C."""
        return 2.0 * self.elements * _pairs(classes, output)

    def build_flops(self, classes: int) -> float:
        """Return the FLOPs of materialising one sample's Jacobian: 2 C T P."""
        return 0.0 if self.kind == "dense" else 2.0 * classes * self.positions * self.elements

    def factored_flops(self, classes: int, output: str) -> float:
        """Return the factored block's FLOPs per pair, the cheaper of its two forms.

        Factored 2 T^2 (d + C^2 p) (C p instead of C^2 p but for `full`); half-factored 2 T^2 (d + C p) + 2 T C^2 p.
        """
        t, d, p = self.positions, self.inputs, self.outputs
        plain = 2.0 * t * t * (d + _pairs(classes, output) * p)
        half = 2.0 * t * t * (d + classes * p) + 2.0 * t * classes**2 * p
        return min(plain, half) if output == "full" else plain

    def lookup_flops(self, classes: int, output: str) -> float:
        """Return an upper estimate for matching tokens: every position matches once."""
        return 2.0 * self.positions * self.outputs * _pairs(classes, output)

    def structured_flops(self) -> float:
        """Return the FLOPs per pair of a readout that was cut off: h.h', and h.u twice for a tied table."""
        return 6.0 * self.outputs

    def flops(self, method: Method, output: str, classes: int, samples: int, partners: int) -> float:
        """Return the FLOPs per pair of samples, building included."""
        if method == "factored":
            return self.factored_flops(classes, output)
        if method == "lookup":
            return self.lookup_flops(classes, output)
        if method == "structured":
            return self.structured_flops()
        return self.gram_flops(classes, output) + self.build_flops(classes) * (1 / samples + 1 / partners)

    def gram_seconds(
        self, method: Method, output: str, classes: int, samples: int, partners: int, rates: Rates
    ) -> float:
        """Return the predicted seconds per pair of samples, building not included."""
        if method == "factored":
            return self.factored_flops(classes, output) / rates.factored(self.positions, classes)
        if method == "lookup":
            return self.lookup_flops(classes, output) / rates.factored(1, classes)
        if method == "structured":
            return self.structured_flops() / rates.at("gram", min(samples, partners))
        rows = min(samples, partners) * (classes if output == "full" else 1)
        return self.gram_flops(classes, output) / rates.at("gram", rows)

    def build_seconds(self, classes: int, rates: Rates) -> float:
        """Return the predicted seconds of materialising one sample's Jacobian."""
        return self.build_flops(classes) / rates.at("conv_build" if self.kind == "conv" else "build", self.positions)

    def choose(self, output: str, classes: int, samples: int, partners: int, rates: Rates = DEFAULT) -> Method:
        """Return the method with the least predicted time."""
        sizes = (output, classes, samples, partners, rates)
        return min(self.methods, key=lambda method: self.seconds(method, *sizes))

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that this factor has."""
        if self.kind in ("lookup", "readout"):
            return ("lookup",) if self.kind == "lookup" else ("structured",)
        return ("materialise", "factored") if self.factors else ("materialise",)

    def seconds(self, method: Method, output: str, classes: int, samples: int, partners: int, rates: Rates) -> float:
        """Return the predicted seconds per pair of samples, building included."""
        gram = self.gram_seconds(method, output, classes, samples, partners, rates)
        build = self.build_seconds(classes, rates) if method == "materialise" else 0.0
        return gram + build * (1 / samples + 1 / partners)


def _pairs(classes: int, output: str) -> int:
    """Return how many pairs of outputs a kernel has per pair of samples."""
    return classes**2 if output == "full" else classes
