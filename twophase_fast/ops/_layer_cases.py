"""Rows in the form of `OP_CASES`, and counts of work, for the ops whose benchmark sizes are those of real layers."""

from __future__ import annotations

from typing import Any

import torch

from twophase_fast import ops
from twophase_fast.ops._case import Inputs, OpCase, Sizes, random


def _factored(s: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    a = random(generator, dtype, s["n"], s["t"], s["d"])
    g = random(generator, dtype, s["n"], s["c"], s["t"], s["p"])
    return {"a": a, "g": g, "a2": None, "g2": None, "output": "full", "precision": "highest"}


def _linear(s: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    a = random(generator, dtype, s["n"], s["t"], s["d"])
    g = random(generator, dtype, s["n"], s["c"], s["t"], s["p"])
    return {"a": a, "g": g, "precision": "highest"}


def _conv(s: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    x = random(generator, dtype, s["n"], s["d"], s["side"], s["side"])
    g = random(generator, dtype, s["n"], s["c"], s["p"], s["side"], s["side"])
    return {"x": x, "g": g, "kernel_size": (3, 3), "padding": (1, 1), "precision": "highest"}


def _conv_operands(inputs: Inputs) -> tuple[Any, ...]:
    return inputs["x"], inputs["g"], [3, 3], [1, 1], [1, 1], [1, 1], 1, "highest"


def _pull_back(s: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    g = random(generator, dtype, s["n"], s["p"], *[_places(s)] * 2)
    weight = random(generator, dtype, s["p"], s["d"], s["kernel"], s["kernel"])
    steps = {"stride": (s["stride"],) * 2, "padding": (s["padding"],) * 2}
    return {"g": g, "weight": weight, "size": (s["side"],) * 2, **steps, "precision": "highest"}


def _places(s: Sizes) -> int:
    """Output positions of a convolution along an axis."""
    return (s["side"] + 2 * s["padding"] - s["kernel"]) // s["stride"] + 1


def _pull_back_operands(inputs: Inputs) -> tuple[Any, ...]:
    g, weight, size, stride, padding, precision = inputs.values()
    return g, weight, size, stride, padding, (1, 1), 1, precision


def _embedding(s: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    tokens = torch.randint(s["v"], (s["n"], s["t"]), generator=generator)
    g = random(generator, dtype, s["n"], s["c"], s["t"], s["p"])
    side = {"tokens": tokens, "g": g, "tokens2": None, "g2": None}
    return {**side, "output": "full", "padding_idx": None, "precision": "highest"}


LAYER_CASES = (
    OpCase("factored_gram", ops.factored_gram, [], _factored),
    OpCase("per_sample_grad", ops.per_sample_grad, [], _linear),
    OpCase("per_sample_conv_grad", ops.per_sample_conv_grad, [], _conv, operands=_conv_operands),
    OpCase("conv_input_grad", ops.conv_input_grad, [], _pull_back, operands=_pull_back_operands),
    OpCase("embedding_gram", ops.embedding_gram, [], _embedding),
)
"""One row per op that is measured at the sizes of a layer: n samples, c outputs, t positions, d inputs, p outputs."""


def factored_flops(s: Sizes) -> float:
    """The least of three ways, over N(N+1)/2 pairs: factored, half-factored, and the Jacobian with its Gram product.

    Per pair 2T²(d + C²p); 2T²(d + Cp) + 2TC²p; 2C²pd, and 2·N·C·T·p·d once to build the Jacobian.
    """
    n, c, t, d, p = (s[axis] for axis in "nctdp")
    pairs = n * (n + 1) / 2
    factored = pairs * 2 * t**2 * (d + c**2 * p)
    half_factored = pairs * (2 * t**2 * (d + c * p) + 2 * t * c**2 * p)
    materialised = pairs * 2 * c**2 * p * d + linear_flops(s)
    return min(factored, half_factored, materialised)


def factored_bytes(s: Sizes) -> float:
    """Both factors and the result."""
    return 4 * (s["n"] * s["t"] * (s["d"] + s["c"] * s["p"]) + (s["n"] * s["c"]) ** 2)


def linear_flops(s: Sizes) -> float:
    """2·N·C·T·p·d."""
    return 2 * s["n"] * s["c"] * s["t"] * s["p"] * s["d"]


def linear_bytes(s: Sizes) -> float:
    """Both factors and the result."""
    return 4 * s["n"] * (s["t"] * (s["d"] + s["c"] * s["p"]) + s["c"] * s["p"] * s["d"])


def conv_flops(s: Sizes) -> float:
    """2·N·C·Cout·(9·Cin)·positions."""
    return 2 * s["n"] * s["c"] * s["p"] * 9 * s["d"] * s["side"] ** 2


def conv_bytes(s: Sizes) -> float:
    """Images, cotangents and the result."""
    return 4 * s["n"] * (s["side"] ** 2 * (s["d"] + s["c"] * s["p"]) + s["c"] * s["p"] * 9 * s["d"])


def pull_back_flops(s: Sizes) -> float:
    """2·N·Cout·Cin·taps·positions, as a direct sum needs them."""
    return 2 * s["n"] * s["p"] * s["d"] * s["kernel"] ** 2 * _places(s) ** 2


def pull_back_bytes(s: Sizes) -> float:
    """Cotangents, kernel and the result."""
    images = s["n"] * (s["p"] * _places(s) ** 2 + s["d"] * s["side"] ** 2)
    return 4 * (images + s["p"] * s["d"] * s["kernel"] ** 2)


def linear_input_bytes(s: Sizes) -> float:
    """Cotangents, weight, the derivative if there is one, and the result, which is read, too, if it is added to."""
    rows = s["n"] * s["c"] * s["t"]
    result = rows * s["d"] * (1 + s["add"])
    return 4 * (rows * s["p"] + s["p"] * s["d"] + s["scale"] * s["n"] * s["t"] * s["d"] + result)


def embedding_bytes(s: Sizes) -> float:
    """Tokens, cotangents and the result (the work depends on how many tokens match)."""
    return s["n"] * s["t"] * (8 + 4 * s["c"] * s["p"]) + 4 * (s["n"] * s["c"]) ** 2


def norm_bytes(s: Sizes) -> float:
    """Cotangents and result, input and, of BatchNorm (k channels), its ReLU."""
    if "k" in s:
        return 4 * s["n"] * s["k"] * s["t"] * (2 * s["c"] + 1 + s["relu"])
    return 4 * s["n"] * s["t"] * s["d"] * (2 * s["c"] + 1)


def product_flops(s: Sizes) -> float:
    """2·N·C·heads·rows·terms·columns."""
    return 2 * s["n"] * s["c"] * s["heads"] * s["rows"] * s["terms"] * s["columns"]


def product_bytes(s: Sizes) -> float:
    """Both operands and the result; `shared` > 0: one right operand for all outputs, < 0: one left operand."""
    left = s["rows"] * s["terms"] * (1 if s["shared"] < 0 else s["c"])
    right = s["terms"] * s["columns"] * (1 if s["shared"] > 0 else s["c"])
    return 4 * s["n"] * s["heads"] * (left + right + s["c"] * s["rows"] * s["columns"])
