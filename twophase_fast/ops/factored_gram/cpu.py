"""Factored Gram blocks in C++ (`csrc/factored_gram`, and two methods on top of `gram`), chosen by `config.method`."""

from __future__ import annotations

import torch

from twophase_fast import _native
from twophase_fast.ops import _cpu, _operands
from twophase_fast.ops.factored_gram import config, materialised, single
from twophase_fast.ops.gram import cpu as gram_cpu
from twophase_fast.ops.per_sample_grad import cpu as grad_cpu

_SLICE_INPUTS = 192  # whole panels of every instruction set


refuses = _operands.cpu_refuses
"""Why the ops of this folder do not run here."""


def factored_gram(
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    precision: str,
) -> torch.Tensor:
    """Return the factored Gram block, exactly symmetric without a2 and g2."""
    out = _operands.new_gram(output, g, g2, _cpu.zeros)
    factored_gram_(out, a, g, a2, g2, output, precision)
    if a2 is None:
        gram_cpu.symmetrize_(_operands.matrices(output, out))
    return out


def factored_gram_(
    out: torch.Tensor,
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    precision: str,
) -> None:
    """Add the factored Gram block to `out`; without a2 and g2 only the upper triangle."""
    sizes = _sizes(a, g, a2, g2)
    method = config.method(sizes, output, split=_cpu.splits(precision, out))
    run(out, a, g, a2, g2, output, method, config.blocks(method), precision)


def run(
    out: torch.Tensor,
    a: torch.Tensor,
    g: torch.Tensor,
    a2: torch.Tensor | None,
    g2: torch.Tensor | None,
    output: str,
    method: config.Method,
    blocks: config.Blocks,
    precision: str = "highest",
) -> None:
    """Run one method with given block sizes.

    `single` and `split` take float32 and split it; `tiles`, `half` and `pointwise` have one precision, the highest;
    `materialised` runs as `precision` says.
    """
    right = None if a2 is None or g2 is None else (a2, g2)
    if method == "single":
        return single.add(out, (a, g), right, output)
    if method == "materialised":
        kernels = materialised.Kernels(gram_cpu.gram_, grad_cpu.per_sample_grad_out, blocks.jacobian, _SLICE_INPUTS)
        return materialised.add(out, (a, g), right, output, kernels, precision)
    second = (None, None) if right is None else (right[0].numpy(), right[1].numpy())
    arrays = out.numpy(), a.numpy(), g.numpy(), *second, output
    if method == "split":
        return _native.call_split("split_factored_gram_", *arrays, blocks.as_list())
    _native.call("factored_gram_", *arrays, method, blocks.as_list())


def _sizes(a: torch.Tensor, g: torch.Tensor, a2: torch.Tensor | None, g2: torch.Tensor | None) -> config.Sizes:
    (n, c, t, p), (m, c2, t2, _) = g.shape, (g if g2 is None else g2).shape
    return config.Sizes(n, m, t, t2, c, c2, a.shape[2], p)
