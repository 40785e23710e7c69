"""Rows of the table of ops for the pull-back through a convolution; see `_cases.py`."""

from __future__ import annotations

import torch

from twophase_fast import ops
from twophase_fast.ops._case import ODD_SIZES, Inputs, OpCase, Sizes, random


def _sizes() -> list[Sizes]:
    """Channels are per group; `size` is the last spatial axis, `others` are the ones before it."""
    base = {"n": 2, "groups": 1, "cin": 13, "cout": 10, "dims": 2, "size": 9, "others": 5, "add": 1}
    taps = {"kernel": 3, "stride": 1, "padding": 1, "dilation": 1}
    sizes: list[Sizes] = [{**base, **taps, "groups": g, "cin": i, "cout": o} for g, i, o in ((2, 2, 3), (5, 1, 1))]
    sizes += [{**base, **taps, "size": size, "add": size % 2} for size in ODD_SIZES]
    sizes += [{**base, **taps, axis: size} for axis in ("cin", "cout") for size in (1, 17, 33)]
    sizes += [{**base, **taps, "n": n, "size": 3} for n in (1, 7, 65)]
    sizes += [{**base, **taps, axis: size, "add": 0} for axis in taps for size in (1, 2, 3)]
    sizes += [{**base, **taps, "size": size, "stride": stride} for size in (31, 32, 33) for stride in (2, 3)]
    sizes += [{**base, **taps, "padding": 4, "dilation": 2, "stride": stride} for stride in (1, 2, 4)]
    sizes += [{**base, **taps, "kernel": 2, "dilation": 3, "stride": 2, "groups": 3, "cin": 2, "cout": 2}]
    sizes += [{**base, **taps, "dims": 1, "stride": stride} for stride in (1, 2)]
    sizes += [{**base, **taps, "n": 70, "others": 13, "size": 11 + pad, "padding": pad, "add": pad} for pad in (0, 1)]
    sizes += [{**base, **taps, "n": 90, "others": 8, "size": 7, "cout": 19, "padding": 2}]  # tiles of 4x2, as above
    sizes += [{**base, **taps, "n": 0}, {**base, **taps, "size": 70, "cout": 140}]
    return [
        *sizes,
        {**base, **taps, "stride": 2, "cin": 70, "cout": 140},
        {**base, **taps, "size": 1100, "kernel": 5, "cin": 5, "cout": 4},
    ]


def _make(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    s = sizes
    spatial = [*[s["others"]] * (s["dims"] - 1), s["size"]]
    reach = s["dilation"] * (s["kernel"] - 1) + 1
    places = [(size + 2 * s["padding"] - reach) // s["stride"] + 1 for size in spatial]
    g = random(generator, dtype, s["n"], s["groups"] * s["cout"], *places)
    weight = random(generator, dtype, s["groups"] * s["cout"], s["cin"], *[s["kernel"]] * s["dims"])
    geometry = {name: (s[name],) * s["dims"] for name in ("stride", "padding", "dilation")}
    return {"g": g, "weight": weight, "size": spatial, **geometry, "groups": s["groups"], "precision": "highest"}


def _make_(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    """What `out` holds is added to, or must not be read: then it is NaN."""
    made = _make(sizes, dtype, generator)
    out = random(generator, dtype, sizes["n"], sizes["groups"] * sizes["cin"], *made.pop("size"))
    precision, add = made.pop("precision"), bool(sizes["add"])
    return {"out": out if add else out.fill_(torch.nan), **made, "add": add, "precision": precision}


CONV_INPUT_CASES: tuple[OpCase, ...] = (
    OpCase("conv_input_grad", ops.conv_input_grad, _sizes(), _make),
    OpCase("conv_input_grad_", ops.conv_input_grad_, _sizes(), _make_),
)
"""Rows of the pull-back through a convolution."""
