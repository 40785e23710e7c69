"""Rows of the table of ops (`_cases.py`) for the ops over positions."""

from __future__ import annotations

from typing import Any

import torch

from twophase_fast import ops
from twophase_fast.ops import _operands
from twophase_fast.ops._case import ODD_SIZES, Inputs, OpCase, Sizes, poison_lower, random

_OUTPUTS = tuple(_operands.AXES)
_SIDES = {"n": 3, "m": 4, "t": 2, "s": 3, "c": 2, "e": 2, "d": 5, "p": 6}


def _gram_sizes() -> list[Sizes]:
    """Each axis in turn runs through odd sizes; m = 0 stands for no second side, `output` counts the outputs."""
    sizes = [{**_SIDES, axis: size, "output": 0} for axis in _SIDES for size in (1, 8, 9)]
    sizes += [{**_SIDES, axis: size, "output": 0} for axis in ("t", "s", "d", "p") for size in ODD_SIZES[9::2]]
    sizes += [{**_SIDES, "m": m, "n": n, "output": o} for o in (0, 1, 2) for m in (0, 7) for n in (1, 17)]
    sizes += [{**_SIDES, "t": 1, "s": 1, "m": m, "c": c, "e": c, "output": 0} for m in (0, 5) for c in (1, 7, 33)]
    sizes += [{**_SIDES, "m": m, "t": t, "s": t, "output": o} for o in (0, 1, 2) for m in (0, 4) for t in (1, 100)]
    sizes += [{**_SIDES, empty: 0, "output": 0} for empty in ("n", "t", "d")]
    sizes += [{"n": 17, "m": 0, "t": 1, "s": 1, "c": 10, "e": 10, "d": 300, "p": 270, "output": 0}]
    sizes += [{"n": 5, "m": 0, "t": 16, "s": 16, "c": 10, "e": 10, "d": 65, "p": 30, "output": 0}]
    return sizes


def _make_factored(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    s = sizes
    a = random(generator, dtype, s["n"], s["t"], s["d"])
    g = random(generator, dtype, s["n"], s["c"], s["t"], s["p"])
    a2 = random(generator, dtype, s["m"], s["s"], s["d"]) if s["m"] else None
    g2 = random(generator, dtype, s["m"], s["e"], s["s"], s["p"]) if s["m"] else None
    return {"a": a, "g": g, "a2": a2, "g2": g2, "output": _OUTPUTS[s["output"]], "precision": "highest"}


def _make_embedding(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    """Tokens of a table of 5 rows, as floating-point numbers, which the calls below convert."""
    factored = _make_factored({**sizes, "d": 1}, dtype, generator)
    tokens, tokens2 = (
        None if a is None else torch.randint(5, a.shape[:2], generator=generator).to(dtype)
        for a in (factored["a"], factored["a2"])
    )
    sides = {"tokens": tokens, "g": factored["g"], "tokens2": tokens2, "g2": factored["g2"]}
    return {**sides, "output": factored["output"], "padding_idx": 3 if sizes["d"] % 2 else None, "precision": "highest"}


def _with_out(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Add an accumulator whose entries that nobody may read are NaN."""
    output, g2 = inputs["output"], inputs["g2"]
    out = _operands.new_gram(output, inputs["g"], g2)
    out.copy_(random(generator, out.dtype, *out.shape))
    if g2 is None:
        poison_lower(_operands.matrices(output, out))
    return {"out": out, **inputs}


def _make_factored_(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    return _with_out(_make_factored(sizes, dtype, generator), generator)


def _make_embedding_(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    return _with_out(_make_embedding(sizes, dtype, generator), generator)


def _defined(inputs: Inputs, out: torch.Tensor) -> torch.Tensor:
    """The kernel matrices of an accumulator, without the entries that are left undefined."""
    contiguous = _operands.new_gram(inputs["output"], inputs["g"], inputs["g2"]).copy_(out)
    matrices = _operands.matrices(inputs["output"], contiguous)
    return matrices.triu() if inputs["g2"] is None else matrices


def _call_factored_(**inputs: Any) -> torch.Tensor:
    return _defined(inputs, ops.factored_gram_(**inputs))


def _integers(inputs: Inputs) -> Inputs:
    tokens = {name: inputs[name] if inputs[name] is None else inputs[name].long() for name in ("tokens", "tokens2")}
    return {**inputs, **tokens}


def _call_embedding(**inputs: Any) -> torch.Tensor:
    return ops.embedding_gram(**_integers(inputs))


def _call_embedding_(**inputs: Any) -> torch.Tensor:
    return _defined(inputs, ops.embedding_gram_(**_integers(inputs)))


def _integer_operands(inputs: Inputs) -> tuple[Any, ...]:
    return tuple(_integers(inputs).values())


def _linear_sizes() -> list[Sizes]:
    base = {"n": 2, "c": 3, "t": 4, "d": 9, "p": 5}
    sizes: list[Sizes] = [{**base, axis: size} for axis in base for size in ODD_SIZES]
    sizes += [{**base, empty: 0} for empty in ("n", "t", "p")]
    return [*sizes, {**base, "t": 700}, {"n": 1, "c": 10, "t": 16, "d": 100, "p": 40}]


def _make_linear(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    s = sizes
    a = random(generator, dtype, s["n"], s["t"], s["d"])
    g = random(generator, dtype, s["n"], s["c"], s["t"], s["p"])
    return {"a": a, "g": g, "precision": "highest"}


def _conv_sizes() -> list[Sizes]:
    """Channels are per group; a `size` is the last spatial axis, the others are 5."""
    base = {"n": 2, "c": 2, "groups": 1, "cin": 3, "cout": 4, "dims": 2, "size": 9}
    taps = {"kernel": 3, "stride": 1, "padding": 1, "dilation": 1}
    sizes: list[Sizes] = [{**base, **taps, "groups": g, "cin": i, "cout": o} for g, i, o in ((2, 2, 3), (5, 1, 1))]
    sizes += [{**base, **taps, "size": size} for size in ODD_SIZES]
    sizes += [{**base, **taps, axis: size} for axis in ("n", "c", "cin", "cout") for size in (1, 7, 9)]
    sizes += [{**base, **taps, axis: size} for axis in taps for size in (1, 2, 3)]
    sizes += [{**base, **taps, "padding": 4, "dilation": 2, "stride": stride} for stride in (1, 2, 4)]
    sizes += [{**base, **taps, "kernel": 2, "dilation": 3, "stride": 2, "groups": 3, "cin": 2, "cout": 2}]
    sizes += [{**base, **taps, "dims": 1, "stride": stride} for stride in (1, 2)]
    sizes += [{**base, **taps, "n": 0}]
    wide = {**base, **taps, "cin": 9, "cout": 11, "size": 20}  # enough of everything for minimal filtering
    sizes += [{**wide, "size": size} for size in (13, 14, 16, 17, 31, 33, 65)]
    sizes += [{**wide, axis: size} for axis in ("cin", "cout") for size in (8, 16, 17, 33, 70)]
    sizes += [{**wide, "padding": padding, "size": 24} for padding in (0, 2, 4)]
    return [*sizes, {**wide, "cin": 66, "cout": 20, "size": 132}, {**base, **taps, "size": 70, "c": 10, "cout": 8}]


def _make_conv(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    s = sizes
    spatial = [*[5] * (s["dims"] - 1), s["size"]]
    reach = s["dilation"] * (s["kernel"] - 1) + 1
    places = [(size + 2 * s["padding"] - reach) // s["stride"] + 1 for size in spatial]
    x = random(generator, dtype, s["n"], s["groups"] * s["cin"], *spatial)
    g = random(generator, dtype, s["n"], s["c"], s["groups"] * s["cout"], *places)
    numbers = {"kernel_size": s["kernel"], "stride": s["stride"], "padding": s["padding"], "dilation": s["dilation"]}
    geometry = {name: (value,) * s["dims"] for name, value in numbers.items()}
    return {"x": x, "g": g, **geometry, "groups": s["groups"], "precision": "highest"}


def _empty_result(inputs: Inputs) -> torch.Tensor:
    """NaN in the shape of a gradient, as columns of a wider Jacobian."""
    shape = (
        (inputs["g"].shape[:2], inputs["g"].shape[3], inputs["a"].shape[2]) if "a" in inputs else _conv_shape(inputs)
    )
    rows, elements = shape[0].numel(), torch.Size(shape[1:]).numel()
    jacobian = inputs["g"].new_full((rows, elements + 5), torch.nan)
    return jacobian[:, 2 : 2 + elements].view(*shape[0], *shape[1:])


def _conv_shape(inputs: Inputs) -> tuple[Any, ...]:
    g, channels = inputs["g"], inputs["x"].shape[1] // inputs["groups"]
    return (g.shape[:2], g.shape[2], channels, *inputs["kernel_size"])


def _call_linear_out(**inputs: Any) -> torch.Tensor:
    return ops.per_sample_grad(**inputs, out=_empty_result(inputs))


def _call_conv_out(**inputs: Any) -> torch.Tensor:
    return ops.per_sample_conv_grad(**inputs, out=_empty_result(inputs))


def _out_first(inputs: Inputs) -> tuple[Any, ...]:
    return (_empty_result(inputs), *inputs.values())


FACTORED_CASES: tuple[OpCase, ...] = (
    OpCase("factored_gram", ops.factored_gram, _gram_sizes(), _make_factored),
    OpCase("factored_gram_", _call_factored_, _gram_sizes(), _make_factored_),
    OpCase("per_sample_grad", ops.per_sample_grad, _linear_sizes(), _make_linear),
    OpCase("per_sample_grad_out", _call_linear_out, _linear_sizes(), _make_linear, operands=_out_first),
    OpCase("per_sample_conv_grad", ops.per_sample_conv_grad, _conv_sizes(), _make_conv),
    OpCase("per_sample_conv_grad_out", _call_conv_out, _conv_sizes(), _make_conv, operands=_out_first),
    OpCase("embedding_gram", _call_embedding, _gram_sizes(), _make_embedding, operands=_integer_operands),
    OpCase("embedding_gram_", _call_embedding_, _gram_sizes(), _make_embedding_, operands=_integer_operands),
)
"""Rows of the ops over positions."""
