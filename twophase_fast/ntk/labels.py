"""Which sample each element of each cotangent belongs to.

Pull back a random v, then v_n * 2**k(n): every element that belongs to sample n alone grows by exactly 2**k(n). The
ratio is exact in floating point, so it either names the sample or shows that samples mix. More samples than exponents
take several digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.autograd.graph import GradientEdge, Node

from twophase_fast.ntk.graph import ACCUMULATE, Graph
from twophase_fast.rules.layout import UNKNOWN

_BASE = 16
_SEED = 20_250_513


@dataclass(frozen=True)
class Labels:
    """Labels of cotangents of a graph.

    Attributes:
        elements: (node, output index) -> int64 labels in the cotangent's shape; -1 where it is zero or not finite.
        sorted: Node -> whether each of its cotangents' elements belongs to one sample.
    """

    elements: dict[tuple[Node, int], torch.Tensor]
    sorted: dict[Node, bool]


def label(graph: Graph, nodes: Iterable[Node] | None = None) -> Labels:
    """Label the cotangents of `nodes` (default: all) by 1 + ceil(log16 N) pull-backs."""
    chosen = graph.nodes if nodes is None else nodes
    edges = [(n, j) for n in chosen if n.name() != ACCUMULATE for j in graph.used_outputs(n)]
    if not edges:
        return Labels({}, {})
    y = graph.output
    v = torch.randn(y.shape, generator=torch.Generator().manual_seed(_SEED), dtype=torch.float64).to(y)
    once = _pull(y, edges, v)
    labels: dict[tuple[Node, int], torch.Tensor] = {}
    ordered: dict[Node, bool] = {}
    for place, scale in _digits(y):
        for edge, a, b in zip(edges, once, _pull(y, edges, v * scale)):
            if a is None or b is None:
                continue
            digit, good = _digit(a, b)
            ordered[edge[0]] = ordered.get(edge[0], True) and good
            labels[edge] = labels.get(edge, 0) + digit * place
    known = {edge: _known(a) for edge, a in zip(edges, once) if a is not None}
    elements = {edge: torch.where(known[edge], value, UNKNOWN) for edge, value in labels.items()}
    return Labels(elements, ordered)


def _digits(y: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (place value, 2**digit of each sample [N, 1])."""
    samples = torch.arange(y.shape[0], device=y.device)
    for k in range(max(1, math.ceil(math.log(y.shape[0], _BASE)))):
        digit = (samples // _BASE**k) % _BASE
        yield _BASE**k, torch.pow(2.0, digit).to(y.dtype).unsqueeze(1)


def _pull(y: torch.Tensor, edges: list[tuple[Node, int]], cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    inputs = [GradientEdge(*edge) for edge in edges]
    return torch.autograd.grad([y], inputs, [cotangent], retain_graph=True, allow_unused=True)


def _known(cotangent: torch.Tensor) -> torch.Tensor:
    """Return where a cotangent can be labelled: zero has no sample, infinity and NaN show in the kernel itself."""
    return (cotangent != 0) & torch.isfinite(cotangent)


def _digit(once: torch.Tensor, scaled: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Return the exponent of scaled / once per element, and whether all are whole and in range."""
    known = _known(once) & torch.isfinite(scaled)
    if once.is_complex():
        by_imaginary = once.imag.abs() > once.real.abs()
        once, scaled = (torch.where(by_imaginary, g.imag, g.real) for g in (once, scaled))
    ratio = torch.where(known, scaled, 1.0) / torch.where(known, once, 1.0)
    mantissa, exponent = torch.frexp(ratio)  # 2**k is 0.5 * 2**(k + 1)
    digit = exponent - 1
    good = (mantissa == 0.5) & (digit >= 0) & (digit < _BASE)
    return torch.where(good, digit, 0).long(), bool(good.all())
