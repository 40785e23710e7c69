"""Rows of the table of ops for the pull-back through linear layers, batched products and LayerNorm; see `_cases.py`."""

from __future__ import annotations

from typing import Any

import torch

from twophase_fast import ops
from twophase_fast.ops._case import ODD_SIZES, Inputs, OpCase, Sizes, random

_LINEAR = {"n": 2, "c": 3, "t": 5, "p": 9, "d": 17, "add": 1, "scale": 1}
_PRODUCT = {"n": 2, "c": 3, "heads": 2, "rows": 5, "terms": 6, "columns": 7, "shared": 1}
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


def _product_sizes() -> list[Sizes]:
    """Each axis in turn runs through odd sizes, with the left, the right or no operand shared by the outputs."""
    sizes: list[Sizes] = [{**_PRODUCT, axis: size} for axis in ("rows", "terms", "columns") for size in ODD_SIZES]
    sizes += [{**_PRODUCT, axis: size} for axis in ("n", "c", "heads") for size in (0, 1, 7)]
    sizes += [{**_PRODUCT, "shared": shared, "columns": columns} for shared in (-1, 0, 1) for columns in (17, 40)]
    return [*sizes, {**_PRODUCT, "rows": 65, "terms": 300, "columns": 65}]


def _make_product(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    """Operands and result lie transposed in memory here and there."""
    n, c, h, rows, terms, columns = (sizes[name] for name in ("n", "c", "heads", "rows", "terms", "columns"))
    left = random(generator, dtype, n, 1 if sizes["shared"] < 0 else c, rows, h, terms).transpose(2, 3)
    right = random(generator, dtype, n, 1 if sizes["shared"] > 0 else c, h, columns, terms).transpose(3, 4)
    out = random(generator, dtype, n, c, rows, h, columns).fill_(torch.nan).transpose(2, 3)
    return {"out": out, "left": left, "right": right}


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
    OpCase("batched_product_", ops.batched_product_, _product_sizes(), _make_product),
    OpCase("layer_norm_grad", ops.layer_norm_grad, _norm_sizes(), _make_norm, values=list),
    OpCase("layer_norm_grad_out", _call_in_place, _norm_sizes(), _make_norm, values=list, operands=_results_first),
)
"""Rows of the pull-back through linear layers, batched products and LayerNorm."""
