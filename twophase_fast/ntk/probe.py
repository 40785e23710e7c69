"""Which nodes use which parameters, and where each keeps its samples: found on two tiny batches.

The model runs on 2 and on 3 samples. Pulling back a random v and then 2**n * v_n multiplies every element of every
cotangent by exactly 2**n where it belongs to sample n: the ratio is the sample's label. A node whose cotangent is
labelled is a use; one that is not, and whose shape does not depend on the number of samples, computes a tensor from
parameters alone (a transposed or sliced weight), and its consumers are looked at instead; one whose shape does
depend on it mixes samples and is refused. Comparing both runs' shapes says which axis holds the samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch.autograd.graph import GradientEdge, Node

from twophase_fast._types import UnsupportedModelError
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.graph import ACCUMULATE, Graph, output_shape
from twophase_fast.ntk.inputs import Batch
from twophase_fast.rules.layout import Layout, labels_agree, sample_layout

_SIZES = ((2, 3), (5, 7))
_SEED = 20_250_513


@dataclass(frozen=True)
class SlotSpec:
    """A parameter slot of a use: `source` = (node position, output index) feeds it; `leaves` names its parameters."""

    slot: int
    source: tuple[int, int]
    leaves: tuple[str, ...]


@dataclass(frozen=True)
class UseSpec:
    """A use by its position in the graph's fixed order."""

    node: int
    name: str
    layouts: dict[int, Layout]
    slots: tuple[SlotSpec, ...]
    shapes: dict[int, torch.Size]


@dataclass(frozen=True)
class Structure:
    """What the probe found; holds for every batch size of the same program.

    Attributes:
        signature: Names and edges of the graph, to recognise the same program.
        uses: Every use of a selected parameter.
        outputs: Number of outputs C.
        activation_bytes: Bytes of all node outputs, per sample (an upper estimate of what a forward keeps).
        sample_output: Outputs of the probe batch, to compare with the full batch.
        sample_index: Samples the probe batch was made of.
    """

    signature: list
    uses: tuple[UseSpec, ...]
    outputs: int
    activation_bytes: int
    sample_output: torch.Tensor = field(repr=False)
    sample_index: torch.Tensor = field(repr=False)


@dataclass
class _Run:
    """One tiny run: its graph, and per (node, output) the labels of its elements."""

    size: int
    graph: Graph
    labels: dict[tuple[Node, int], tuple[torch.Tensor, torch.Tensor]]
    labelled: dict[Node, bool]


def probe(function: Function, batch: Batch) -> Structure:
    """Find every use of the selected parameters.

    Raises:
        UnsupportedModelError: Samples are mixed, the program depends on the data, or a sample axis cannot be told.
    """
    runs = [_run(function, batch, size) for size in _SIZES[0]]
    small, large = runs
    if small.graph.signature() != large.graph.signature():
        raise UnsupportedModelError(
            "the model runs another program for 2 than for 3 samples (data-dependent control flow); its uses cannot "
            "be labelled"
        )
    _check_rows(small, large)
    more: list[_Run] = []

    def evidence() -> list[_Run]:
        if not more:
            more.extend(_run(function, batch, size) for size in _SIZES[1])
        return runs + more

    found = _find_uses(function, large, small)
    uses = tuple(_specify(large, small, node, slots, evidence) for node, slots in found.items())
    if not uses:
        raise UnsupportedModelError("the output depends on none of the selected parameters; check `params`")
    output = large.graph.output
    return Structure(
        large.graph.signature(),
        uses,
        output.shape[1],
        _activation_bytes(large.graph) // large.size,
        output.detach(),
        torch.arange(large.size) % batch.size,
    )


def _run(function: Function, batch: Batch, size: int) -> _Run:
    index = torch.arange(size) % batch.size
    graph = function.graph(batch.take(index.to(function.device)))
    edges = [(n, j) for n in graph.nodes if n.name() != ACCUMULATE for j in graph.used_outputs(n)]
    generator = torch.Generator().manual_seed(_SEED)
    y = graph.output
    v = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
    scale = torch.pow(2.0, torch.arange(size)).to(y).unsqueeze(1)
    once, scaled = (_pull(y, edges, cotangent) for cotangent in (v, v * scale))
    run = _Run(size, graph, {}, {})
    for edge, a, b in zip(edges, once, scaled):
        if a is None:
            continue
        labels, known, good = _label(a, b)
        run.labels[edge] = (labels, known)
        run.labelled[edge[0]] = run.labelled.get(edge[0], True) and good
    return run


def _pull(y: torch.Tensor, edges: list[tuple[Node, int]], cotangent: torch.Tensor) -> tuple:
    inputs = [GradientEdge(*edge) for edge in edges]
    return torch.autograd.grad([y], inputs, [cotangent], retain_graph=True, allow_unused=True)


def _label(once: torch.Tensor, scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Return (sample of each element, where it is known, whether every known ratio is a power of two)."""
    known = once != 0
    exponent = torch.log2((scaled / torch.where(known, once, torch.ones_like(once))).double().abs())
    exponent = torch.where(known, exponent, torch.zeros_like(exponent))
    labels = exponent.round()
    same_sign = ((once > 0) == (scaled > 0)) | ~known
    good = bool((same_sign & (exponent == labels)).all())
    return labels.nan_to_num(-1, -1, -1).long(), known, good


def _check_rows(small: _Run, large: _Run) -> None:
    """Refuse a model whose output for a sample depends on which other samples came with it."""
    check_same_rows(small.graph.output.detach(), large.graph.output.detach()[: small.size])


def check_same_rows(given: torch.Tensor, expected: torch.Tensor) -> None:
    """Refuse outputs of the same samples that differ by more than rounding between two batches.

    Raises:
        UnsupportedModelError: They differ.
    """
    scale = max(float(expected.abs().max()), torch.finfo(expected.dtype).tiny)
    difference = float((given - expected).abs().max()) / scale
    if difference > 20 * torch.finfo(expected.dtype).eps ** 0.5:
        raise UnsupportedModelError(
            f"the same samples give other outputs in another batch (relative difference {difference:.1e}): samples are "
            "coupled through the batch, so a per-sample kernel is not defined"
        )


def _find_uses(function: Function, run: _Run, other: _Run) -> dict[Node, list[SlotSpec]]:
    """Return use node -> its parameter slots."""
    names = {id(p): name for name, p in function.parameters.items()}
    slots: dict[tuple[Node, int, tuple[Node, int]], list[str]] = {}
    for leaf in run.graph.nodes:
        if leaf.name() == ACCUMULATE and id(leaf.variable) in names:
            for key in _frontier(run, other, leaf):
                slots.setdefault(key, []).append(names[id(leaf.variable)])
    uses: dict[Node, list[SlotSpec]] = {}
    for (node, slot, (source, j)), leaves in slots.items():
        uses.setdefault(node, []).append(SlotSpec(slot, (run.graph.index[source], j), tuple(dict.fromkeys(leaves))))
    return uses


def _frontier(run: _Run, other: _Run, leaf: Node) -> list[tuple[Node, int, tuple[Node, int]]]:
    """Return (use, slot, source) reached from a parameter through tensors derived from parameters alone."""
    found, pending, seen = [], [leaf], {leaf}
    while pending:
        source = pending.pop()
        for node, slot, j in run.graph.consumers[source]:
            if node not in run.labelled:
                continue  # the output does not depend on this branch
            if run.labelled[node]:
                found.append((node, slot, (source, j)))
            elif node not in seen:
                seen.add(node)
                _check_derived(run, other, node)
                pending.append(node)
    return found


def _check_derived(run: _Run, other: _Run, node: Node) -> None:
    twin = other.graph.nodes[run.graph.index[node]]
    shapes = [(output_shape(node, j), output_shape(twin, j)) for j in run.graph.used_outputs(node)]
    if node is run.graph.output.grad_fn or any(a != b for a, b in shapes):
        culprit = _first_labelled(run, node)
        raise UnsupportedModelError(
            f"{culprit} mixes samples (the cotangent of {node.name()} with shape {tuple(shapes[0][0])} belongs to no "
            "single sample): a per-sample kernel is not defined for this model; remove the coupling (batch statistics?)"
        )


def _first_labelled(run: _Run, node: Node) -> str:
    """Return the name of the nearest node above `node` whose own cotangent is still sorted by sample."""
    pending = [node]
    while pending:
        current = pending.pop(0)
        for consumer, _, _ in run.graph.consumers.get(current, ()):
            if run.labelled.get(consumer, False):
                return consumer.name()
            pending.append(consumer)
    return "the model"


def _specify(run: _Run, other: _Run, node: Node, slots: list[SlotSpec], evidence) -> UseSpec:
    index = run.graph.index[node]
    outputs = [j for j in run.graph.used_outputs(node) if (node, j) in run.labels]
    layouts = {j: _layout(run, other, index, j, evidence) for j in outputs}
    shapes = {j: output_shape(node, j) for j in outputs}
    return UseSpec(index, node.name(), layouts, tuple(slots), shapes)


def _layout(run: _Run, other: _Run, index: int, j: int, evidence) -> Layout:
    node, twin = run.graph.nodes[index], other.graph.nodes[index]
    candidates = list(sample_layout(output_shape(twin, j), output_shape(node, j), other.size, run.size))
    candidates = _agreeing(candidates, [other, run], index, j)
    if len(candidates) > 1:
        candidates = _agreeing(candidates, evidence(), index, j)
    if len(candidates) != 1:
        state = "no" if not candidates else "more than one possible"
        raise UnsupportedModelError(
            f"{node.name()} with output shape {tuple(output_shape(node, j))} for {run.size} samples has {state} sample "
            "axis: its rows cannot be sorted by sample"
        )
    return candidates[0]


def _agreeing(candidates: list[Layout], runs: list[_Run], index: int, j: int) -> list[Layout]:
    for run in runs:
        edge = (run.graph.nodes[index], j)
        if edge in run.labels:
            candidates = [c for c in candidates if labels_agree(c, *run.labels[edge])]
    return candidates


def _activation_bytes(graph: Graph) -> int:
    outputs = [m for n in graph.nodes if n.name() != ACCUMULATE for m in n._input_metadata]
    return sum(math.prod(m.shape) * m.dtype.itemsize for m in outputs)
