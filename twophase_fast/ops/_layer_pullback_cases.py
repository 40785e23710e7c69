"""Rows of the table of ops for the pull-back through a linear layer and through LayerNorm; see `_cases.py`."""

from __future__ import annotations

from typing import Any

import torch

from twophase_fast import ops
from twophase_fast.ops._case import ODD_SIZES, Inputs, OpCase, Sizes, random

_LINEAR = {"n": 2, "c": 3, "t": 5, "p": 9, "d": 17, "add": 1, "scale": 1}
_NORM = {"n": 2, "c": 3, "t": 5, "d": 17, "weight": 1}


def _linear_sizes() -> list[Sizes]:
    """Each axis in turn runs through odd sizes; the last ones need several blocks of rows, columns and terms."""
    sizes: list[Sizes] = [{**_LINEAR, axis: size} for axis in ("p", "d") for size in ODD_SIZES]
    sizes += [{**_LINEAR, axis: size} for axis in ("n", "c", "t") for size in (1, 7, 31)]
    sizes += [{**_LINEAR, "add": add, "scale": scale, "p": p} for add in (0, 1) for scale in (0, 1) for p in (10, 70)]
    sizes += [{**_LINEAR, empty: 0} for empty in ("n", "c", "t", "p", "d")]
    sizes += [{**_LINEAR, "c": 1, "t": 1, "n": 1, "p": 300, "d": 700}, {**_LINEAR, "d": 530, "add": 0}]
    return [*sizes, {**_LINEAR, "t": 65, "p": 200, "d": 300}, {**_LINEAR, "t": 100, "p": 450, "d": 260}]


def _make_linear(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    """What `out` holds is added to, or must not be read: then it is NaN."""
    s = sizes
    out = random(generator, dtype, s["n"], s["c"], s["t"], s["d"])
    g = random(generator, dtype, s["n"], s["c"], s["t"], s["p"])
    weight = random(generator, dtype, s["p"], s["d"])
    scale = random(generator, dtype, s["n"], s["t"], s["d"]) if s["scale"] else None
    out = out if s["add"] else out.fill_(torch.nan)
    return {"out": out, "g": g, "weight": weight, "scale": scale, "add": bool(s["add"])}


def _norm_sizes() -> list[Sizes]:
    """Each axis in turn runs through odd sizes; then sums over many positions and features.

    The gradient of a single feature is 0, which a product that is rounded with the sum may miss: it comes unscaled.
    """
    sizes: list[Sizes] = [{**_NORM, "t": t} for t in ODD_SIZES] + [{**_NORM, "d": d} for d in ODD_SIZES[1:]]
    sizes += [{**_NORM, axis: size} for axis in ("n", "c") for size in (1, 7)]
    sizes += [{**_NORM, "weight": 0, "d": d} for d in (1, 3, 32)]
    sizes += [{**_NORM, empty: 0} for empty in ("n", "c", "t")]
    return [*sizes, {**_NORM, "t": 3000}, {**_NORM, "d": 5000}, {**_NORM, "t": 65, "d": 192}]


def _make_norm(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    """The statistics are those of x, whose mean is far from 0."""
    s = sizes
    g = random(generator, dtype, s["n"], s["c"], s["t"], s["d"])
    x = 2 + random(generator, dtype, s["n"], s["t"], s["d"])
    mean, rstd = x.mean(-1), ((x - x.mean(-1, keepdim=True)).square().mean(-1) + 1e-5).rsqrt()
    return {
        "g": g,
        "x": x,
        "mean": mean,
        "rstd": rstd,
        "weight": random(generator, dtype, s["d"]) if s["weight"] else None,
    }


def _call_in_place(**inputs: Any) -> tuple[torch.Tensor, ...]:
    g = inputs["g"].detach().clone()
    return ops.layer_norm_grad(**{**inputs, "g": g}, out=g)


def _results_first(inputs: Inputs) -> tuple[Any, ...]:
    g = inputs["g"]
    sums = (*g.shape[:2], g.shape[3])
    return (*(g.new_full(shape, torch.nan) for shape in (g.shape, sums, sums)), *inputs.values())


LAYER_PULLBACK_CASES: tuple[OpCase, ...] = (
    OpCase("linear_input_grad_", ops.linear_input_grad_, _linear_sizes(), _make_linear),
    OpCase("layer_norm_grad", ops.layer_norm_grad, _norm_sizes(), _make_norm, values=list),
    OpCase("layer_norm_grad_out", _call_in_place, _norm_sizes(), _make_norm, values=list, operands=_results_first),
)
"""Rows of the pull-back through a linear layer and through LayerNorm."""
