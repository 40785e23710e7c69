"""The table of ops that drives their property tests and benchmarks: one row per op.

A row says how to call the op and makes its inputs at odd sizes around the widths of vector registers. The tests
(`tests/ops/test_op_properties.py`) take everything else from here: correctness against float64, every backend and
instruction set, strides, threads, poisoned memory, `torch.library.opcheck`, `torch.compile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from twophase_fast import ops
from twophase_fast.ops._case import ODD_SIZES, Inputs, OpCase, Sizes, poison_lower, random
from twophase_fast.ops._checks import ALL_FLOATS
from twophase_fast.ops._conv_input_cases import CONV_INPUT_CASES
from twophase_fast.ops._factored_cases import FACTORED_CASES
from twophase_fast.ops._layer_pullback_cases import LAYER_PULLBACK_CASES
from twophase_fast.ops._norm_cases import NORM_CASES
from twophase_fast.ops._projection_cases import PROJECTION_CASES
from twophase_fast.ops.gram.reference import result_dtype


def _gram_sizes() -> Sequence[Sizes]:
    """One axis runs through the odd sizes while the others stay; m = 0 stands for y=None, batch = 0 for no batch."""
    sizes = [{"batch": 0, "n": n, "m": 0, "p": 33} for n in ODD_SIZES]
    sizes += [{"batch": 0, "n": 7, "m": m, "p": 19} for m in ODD_SIZES]
    sizes += [{"batch": 0, "n": 13, "m": 17, "p": p} for p in ODD_SIZES]
    sizes += [{"batch": 3, "n": 9, "m": m, "p": 65} for m in (0, 1, 17)]
    sizes += [{"batch": 0, "n": 5, "m": m, "p": 0} for m in (0, 3)]
    sizes += [{"batch": 0, "n": 9, "m": 0, "p": 20000}, {"batch": 2, "n": 5, "m": 3, "p": 17001}]
    sizes += [{"batch": 0, "n": 200, "m": 0, "p": 300}, {"batch": 0, "n": 103, "m": 217, "p": 259}]
    return sizes


def _make_gram(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    batch, n, m, p = ((sizes["batch"],) if sizes["batch"] else ()), sizes["n"], sizes["m"], sizes["p"]
    x = random(generator, dtype, *batch, n, p)
    y = random(generator, dtype, *batch, m, p) if m else None
    return {"x": x, "y": y, "precision": "highest"}


def _make_gram_(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    inputs = _make_gram(sizes, dtype, generator)
    x, y = inputs["x"], inputs["y"]
    out = random(generator, result_dtype(dtype), *x.shape[:-1], (x if y is None else y).shape[-2])
    return {"out": poison_lower(out) if y is None else out, **inputs}


def _upper(inputs: Inputs, out: torch.Tensor) -> torch.Tensor:
    return out.triu() if inputs["y"] is None else out


def _call_gram_(**inputs: Any) -> torch.Tensor:
    return _upper(inputs, ops.gram_(**inputs))


def _make_grouped_gram_(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    """Segments of p, 1, 0 and 2 p + 3 terms."""
    n, m, p = sizes["n"], sizes["m"], sizes["p"]
    lengths = (p, 1, 0, 2 * p + 3)
    xs = [random(generator, dtype, n, length) for length in lengths]
    ys = [random(generator, dtype, m, length) for length in lengths] if m else None
    out = random(generator, result_dtype(dtype), n, m or n)
    return {"out": out if m else poison_lower(out), "xs": xs, "ys": ys, "precision": "highest"}


def _call_grouped_gram_(**inputs: Any) -> torch.Tensor:
    out = ops.grouped_gram_(**inputs)
    return out.triu() if inputs["ys"] is None else out


def _grouped_operands(inputs: Inputs) -> tuple[Any, ...]:
    return inputs["out"], inputs["xs"], inputs["ys"] or [], inputs["precision"]


_GROUPED_SIZES = [{"n": n, "m": 0, "p": 33} for n in ODD_SIZES]
_GROUPED_SIZES += [{"n": 13, "m": 17, "p": p} for p in ODD_SIZES] + [{"n": 150, "m": 0, "p": 300}]


def _make_symmetrize_(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    shape = (sizes["batch"],) if sizes["batch"] else ()
    out = random(generator, dtype, *shape, sizes["n"], sizes["n"])
    return {"out": poison_lower(out)}


def _make_moments(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    """R runs of tensors of p, 2 x p and 1 elements, near each other; against one more run, or all pairs if s = 0."""
    shapes = [(sizes["p"],), (2, sizes["p"]), ()]
    centre = [random(generator, dtype, *shape) for shape in shapes]
    runs = [[t + 0.1 * random(generator, dtype, *t.shape) for t in centre] for _ in range(sizes["runs"])]
    return {"xs": runs, "ys": centre if sizes["s"] else None}


def _moment_values(moments: ops.PairMoments) -> list[torch.Tensor]:
    """The fields, inner products as 1 + cosine, so that their errors count relative to the vectors' norms."""
    m = moments
    tiny = torch.finfo(torch.float64).tiny
    cosines = [
        m.xy / (m.xx * m.yy).sqrt(),
        m.dx / (m.dd * m.xx).sqrt().clamp_min(tiny),
        m.ds / (2 * m.dd * (m.xx + m.yy)).sqrt().clamp_min(tiny),
    ]
    values = [m.xx, m.yy, m.dd, m.max_abs_d, m.changed, *(1 + cosine for cosine in cosines)]
    shape = (-1, m.xx.shape[-1])
    return [value.reshape(shape) for value in values]


def _moment_truth(inputs: Inputs) -> list[torch.Tensor]:
    """The moments by NumPy in extended precision."""
    left = [_long(run) for run in inputs["xs"]]
    right = left if inputs["ys"] is None else [_long(inputs["ys"])]
    table = torch.tensor(
        [[[_long_moments(x, y) for x, y in zip(a, b)] for b in right] for a in left], dtype=torch.float64
    )
    return _moment_values(ops.PairMoments(*table.unbind(-1)))


def _long(run: list[torch.Tensor]) -> list[np.ndarray]:
    return [tensor.double().flatten().numpy().astype(np.longdouble) for tensor in run]


def _long_moments(x: np.ndarray, y: np.ndarray) -> list[float]:
    d = y - x
    moments = [x @ y, x @ x, y @ y, d @ d, d @ x, d @ (x + y), np.abs(d).max(), (d != 0).sum()]
    return [float(moment) for moment in moments]


def _moment_operands(inputs: Inputs) -> tuple[Any, ...]:
    flat = [tensor for run in inputs["xs"] for tensor in run]
    return flat, inputs["ys"] or [], len(inputs["xs"])


_MOMENT_SIZES = [{"p": p, "runs": 1, "s": 1} for p in ODD_SIZES]
_MOMENT_SIZES += [{"p": 37, "runs": runs, "s": s} for runs in (2, 5) for s in (0, 1)]
_MOMENT_SIZES += [{"p": p, "runs": 2, "s": 1} for p in (*ODD_SIZES[::3], 1023, 5000)]
_MOMENT_SIZES += [{"p": 9001, "runs": 3, "s": 1}, {"p": 9001, "runs": 3, "s": 0}, {"p": 70001, "runs": 1, "s": 1}]

OP_CASES: tuple[OpCase, ...] = (
    OpCase("gram", ops.gram, _gram_sizes(), _make_gram, dtypes=ALL_FLOATS),
    OpCase("gram_", _call_gram_, _gram_sizes(), _make_gram_, dtypes=ALL_FLOATS),
    OpCase(
        "grouped_gram_",
        _call_grouped_gram_,
        _GROUPED_SIZES,
        _make_grouped_gram_,
        dtypes=ALL_FLOATS,
        operands=_grouped_operands,
    ),
    OpCase(
        "symmetrize_",
        ops.symmetrize_,
        [{"batch": batch, "n": n} for n in (*ODD_SIZES, 200) for batch in (0, 2)],
        _make_symmetrize_,
    ),
    OpCase(
        "pair_moments",
        ops.pair_moments,
        _MOMENT_SIZES,
        _make_moments,
        dtypes=ALL_FLOATS,
        values=_moment_values,
        operands=_moment_operands,
        truth=_moment_truth,
    ),
    *FACTORED_CASES,
    *NORM_CASES,
    *CONV_INPUT_CASES,
    *LAYER_PULLBACK_CASES,
    *PROJECTION_CASES,
)
"""All ops, one row each."""
