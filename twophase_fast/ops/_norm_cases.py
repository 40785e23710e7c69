"""Rows of the table of ops (`_cases.py`) for the backward of BatchNorm in evaluation mode and of ReLU."""

from __future__ import annotations

from typing import Any

import torch

from twophase_fast import ops
from twophase_fast.ops._case import ODD_SIZES, Inputs, OpCase, Sizes, random

_BASE = {"n": 2, "c": 3, "k": 5, "t": 9, "relu": 1, "weight": 1}


def _norm_sizes() -> list[Sizes]:
    """Each axis in turn runs through odd sizes; t is the last spatial axis, t = 0 stands for no spatial axes."""
    sizes: list[Sizes] = [{**_BASE, axis: size} for axis in ("n", "c") for size in (1, 7)]
    sizes += [{**_BASE, "t": t} for t in (0, *ODD_SIZES)]
    sizes += [{**_BASE, "k": k, "t": t} for k in (1, 15, 16, 17, 33, 65) for t in (0, 2, 4, 8)]
    sizes += [{**_BASE, "relu": relu, "weight": weight, "t": t} for relu, weight in ((0, 1), (1, 0)) for t in (3, 16)]
    sizes += [{**_BASE, empty: 0} for empty in ("n", "c", "k")]
    return [*sizes, {**_BASE, "t": 5000}, {**_BASE, "k": 40, "t": 1024}, {**_BASE, "c": 10, "k": 512, "t": 4}]


def _make_norm(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    """Two spatial axes, the first of size 1 or 2; where the ReLU is off, cotangents are NaN and infinite."""
    s = sizes
    spatial = [1 + (s["t"] > 1 and s["t"] % 2 == 0), (s["t"] + 1) // 2 if s["t"] % 2 == 0 else s["t"]] if s["t"] else []
    x, g = random(generator, dtype, s["n"], s["k"], *spatial), random(generator, dtype, *_lead(s), *spatial)
    mean, rstd, weight = (random(generator, dtype, s["k"]) for _ in range(3))
    relu = _gate(x, g) if s["relu"] else None
    scales = {"mean": mean, "rstd": rstd.abs() + 0.5, "weight": weight if s["weight"] else None}
    return {"g": g, "x": x, **scales, "relu": relu}


def _lead(s: Sizes) -> tuple[int, ...]:
    return s["n"], s["c"], s["k"]


def _gate(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """max(x, 0); puts NaN and infinity into g where it is 0."""
    off = (x <= 0).unsqueeze(1).expand_as(g)
    g[off & (g > 0.5)] = torch.nan
    g[off & (g < -0.5)] = -torch.inf
    return x.clamp_min(0)


def _call_in_place(**inputs: Any) -> tuple[torch.Tensor, ...]:
    g = inputs["g"].detach().clone()
    return ops.batch_norm_grad(**{**inputs, "g": g}, out=g)


def _results_first(inputs: Inputs) -> tuple[Any, ...]:
    g = inputs["g"]
    results = [g.new_full(shape, torch.nan) for shape in (g.shape, g.shape[:3], g.shape[:3])]
    return (*results, *inputs.values())


def _make_relu(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    inputs = _make_norm({**sizes, "relu": 1}, dtype, generator)
    return {"out": inputs["g"], "relu": inputs["relu"]}


def _call_relu(out: torch.Tensor, relu: torch.Tensor, backend: Any = None) -> torch.Tensor:
    return ops.relu_grad_(out, relu, backend=backend)


NORM_CASES: tuple[OpCase, ...] = (
    OpCase("batch_norm_grad", ops.batch_norm_grad, _norm_sizes(), _make_norm, values=list),
    OpCase("batch_norm_grad_out", _call_in_place, _norm_sizes(), _make_norm, values=list, operands=_results_first),
    OpCase("relu_grad_", _call_relu, _norm_sizes(), _make_relu),
)
"""Rows of the backward of BatchNorm and ReLU."""
