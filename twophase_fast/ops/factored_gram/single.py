"""Method `single`: one position per sample, so a block is a product of two Gram blocks, entry by entry.

full[n,m,c,c'] = (a[n]·a2[m]) (g[n,c]·g2[m,c']): the first product is small, and the second is weighted by it while
it is added, in one pass over the accumulator. Both run on split operands.
"""

from __future__ import annotations

import torch

from twophase_fast.ops._cpu import zeros
from twophase_fast.ops.factored_gram.materialised import Side, matrices_of
from twophase_fast.ops.gram import cpu


def add(out: torch.Tensor, left: Side, right: Side | None, output: str) -> None:
    """Add the Gram block of (a, g) with (a2, g2) to `out`; with None the upper triangle of the symmetric one.

    Args:
        out: As in `factored_gram_`, float32.
        left: `a` `[N, 1, d]` and `g` `[N, C, 1, p]`, float32.
        right: `a2` and `g2`, or None.
        output: `full`, `trace` or `diagonal`.
    """
    a, a2 = left[0][:, 0], None if right is None else right[0][:, 0]
    weights = zeros((len(a), len(a if a2 is None else a2)), out)
    cpu.split_gram_(weights, a, a2, all_products=True)  # its error adds to the other's
    x, y = _rows(left[1], output), None if right is None else _rows(right[1], output)
    with matrices_of(out, output) as rows:
        cpu.split_gram_(rows, x, y, weights)


def _rows(g: torch.Tensor, output: str) -> torch.Tensor:
    """Return cotangents `[N, C, 1, p]` as an operand of `gram_`."""
    if output == "full":
        return g.flatten(2).flatten(0, 1)
    return g.flatten(1) if output == "trace" else g.flatten(2).transpose(0, 1)
