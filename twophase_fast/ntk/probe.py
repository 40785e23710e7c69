"""What a model's program looks like: found once on two tiny batches, good for every batch size.

The model runs on 2 and on 3 samples (or, where that is little, on all: a capture can then go on from this run). A node
whose output grows with the number of samples and whose cotangent is sorted by sample is a use where it reads a
parameter; one whose output does not grow computes a tensor from parameters alone; one that grows and is not sorted
mixes samples and is refused. That a cotangent is sorted, and along which axis, mostly follows from the nodes above it
(see `trace`); else it is measured (see `labels`), and comparing the two shapes says which axis holds the samples. A
program that depends on the data has no such structure; `irregular_uses` then labels every tile's own graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from twophase_fast._types import UnsupportedModelError
from twophase_fast.ntk.checks import same_rows
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.graph import Graph, Place, output_shape
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.labels import Labels, label
from twophase_fast.ntk.route import Route
from twophase_fast.ntk.trace import grows, layouts_by_shape, trace
from twophase_fast.ntk.uses import UseSpec, find_uses
from twophase_fast.rules.layout import UNKNOWN, Layout, explicit_layout, labels_agree

_SIZES = (2, 3)
_MORE_SIZES = (5, 7)


@dataclass(frozen=True)
class Structure:
    """What the probe found; holds for every batch size.

    Attributes:
        signature: Names and edges of the graph, or None where the program depends on the data.
        uses: Every use of a selected parameter (empty where `signature` is None).
        outputs: Number of outputs C.
        saved_bytes: Bytes that a forward pass keeps, per sample: the growth from the smaller batch to the larger.
        sample_index: The samples the larger batch was made of.
        rows: Their outputs, which are compared with those of the full batch.
        graph: Graph of the larger batch.
        smaller: Graph of the smaller one.
        kept: What the larger graph keeps, and the versions of these tensors.
        routes: Routes of whole pull-backs through the larger graph, by the readout that was cut off (see `route_of`).
    """

    signature: list | None
    uses: tuple[UseSpec, ...]
    outputs: int
    saved_bytes: int
    sample_index: torch.Tensor = field(repr=False)
    rows: torch.Tensor = field(repr=False)
    graph: Graph = field(repr=False)
    smaller: Graph = field(repr=False)
    kept: Sequence[tuple[torch.Tensor, int]] = field(repr=False, default=())
    routes: dict[int | None, Route] = field(repr=False, default_factory=dict)

    def without_graphs(self) -> Structure:
        """Return the structure once nothing more is asked of the graphs, which keep activations alive."""
        return replace(self, graph=None, smaller=None, kept=())  # type: ignore[arg-type]

    def intact(self) -> bool:
        """Return whether nothing that the larger graph keeps was written over since, or while the model ran."""
        return all(tensor._version == version for tensor, version in self.kept)


class _IrregularError(Exception):
    """The program has no structure common to all batch sizes."""


@dataclass(frozen=True)
class _Run:
    """The graph of a tiny batch, and which of its nodes may be uses."""

    graph: Graph
    candidates: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.graph.output.shape[0]

    @cached_property
    def labels(self) -> Labels:
        """Labels of the candidates' cotangents (nothing is pulled back where there are no candidates)."""
        return label(self.graph, [self.graph.nodes[index] for index in self.candidates])


def probe(function: Function, batch: Batch, *, affordable: int = 0) -> Structure:
    """Find every use of the selected parameters.

    Args:
        function: Model, output function and selected parameters.
        batch: The samples.
        affordable: The larger run takes all samples if its graph keeps at most so many bytes.

    Raises:
        UnsupportedModelError: Samples are mixed, or the output depends on none of the parameters.
    """
    hooks = RemovableHandle.next_id
    small, less, _ = _metered(function, _first(function, batch, _SIZES[0]))
    whole = batch.size > _SIZES[1] and 0 < less * batch.size <= affordable * _SIZES[0]
    size = batch.size if whole else _SIZES[1]
    large, more, kept = _metered(function, _first(function, batch, size))
    check_same_rows(small.output.detach(), large.output.detach()[: _SIZES[0]], function.eps)
    signature, uses = None, ()
    try:
        uses = _regular_uses(function, batch, small, large, hooked=RemovableHandle.next_id != hooks)
        signature = large.signature()
    except _IrregularError:
        pass  # every tile is labelled on its own instead: exact, and slower
    if signature is not None and not uses:
        raise UnsupportedModelError("the output depends on none of the selected parameters; check `params`")
    saved = max(more - less, 0) // (size - _SIZES[0])
    index, rows = _index(batch, size), large.output.detach()
    return Structure(signature, uses, large.output.shape[1], saved, index, rows, large, small, kept)


def irregular_uses(function: Function, graph: Graph) -> tuple[UseSpec, ...]:
    """Return the uses in one tile's own graph, with an explicit label per row.

    Raises:
        UnsupportedModelError: The cotangent at the output itself mixes samples.
    """
    labels, samples = label(graph), graph.output.shape[0]

    def check(node: Node) -> None:
        if node is graph.output.grad_fn:
            raise UnsupportedModelError(
                f"{node.name()} mixes samples: a per-sample kernel is not defined for this model"
            )

    ordered = labels.sorted
    found = find_uses(function, graph, is_use=lambda n: ordered[n], reached=lambda n: n in ordered, check_derived=check)
    specs = []
    for node, slots in found.items():
        elements = {j: labels.elements[node, j] for j in graph.used_outputs(node) if (node, j) in labels.elements}
        layouts = {j: explicit_layout(e, samples) for j, e in elements.items() if bool((e != UNKNOWN).any())}
        if layouts:  # else no sample of this tile reaches the node
            specs.append(UseSpec(graph.index[node], node.name(), layouts, slots))
    return tuple(specs)


def check_same_rows(given: torch.Tensor, expected: torch.Tensor, eps: float) -> None:
    """Refuse outputs of the same samples that differ by more than rounding between two batches.

    Raises:
        UnsupportedModelError: They differ.
    """
    if not bool(same_rows(given, expected, eps)):
        scale = max(float(expected.abs().max()), torch.finfo(expected.dtype).tiny)
        difference = float((given - expected).abs().max()) / scale
        raise UnsupportedModelError(
            f"the same samples give other outputs in another batch (relative difference {difference:.1e}): samples are "
            "coupled through the batch, so a per-sample kernel is not defined"
        )


def _index(batch: Batch, size: int) -> torch.Tensor:
    return torch.arange(size) % batch.size


def _first(function: Function, batch: Batch, size: int) -> Batch:
    """Return the first samples, from the start again where there are fewer."""
    return batch.take(_index(batch, size).to(function.device))


def _regular_uses(function: Function, batch: Batch, small: Graph, large: Graph, *, hooked: bool) -> tuple[UseSpec, ...]:
    """Return the uses, if the program is the same for both batch sizes.

    Where the forward pass left hooks, which may change cotangents in any way, every use is labelled.

    Raises:
        _IrregularError: It is not, or a sample axis cannot be told from shapes and labels.
        UnsupportedModelError: A node mixes samples.
    """
    if small.signature() != large.signature():
        raise _IrregularError
    used = [large.used_outputs(node) for node in large.nodes]
    growing = {n for k, n in enumerate(large.nodes) if any(grows(small, large, (k, j)) for j in used[k])}

    def check(node: Node) -> None:
        if node is large.output.grad_fn:
            raise UnsupportedModelError(f"{node.name()} gives one output for all samples")

    found = find_uses(function, large, is_use=lambda n: n in growing, reached=lambda n: True, check_derived=check)
    indices = [large.index[node] for node in found]
    layouts = {} if hooked else trace(small, large, [(k, j) for k in indices for j in used[k]])
    run = _Run(small, tuple(k for k in indices if any((k, j) not in layouts for j in used[k])))
    _check_sorted(run)
    places = [(k, j) for k in run.candidates for j in _outputs(run, k)]
    layouts |= _layouts(places, run, large, lambda size: function.graph(_first(function, batch, size)))
    specs = []
    for (node, slots), k in zip(found.items(), indices):
        own = {j: layouts[k, j] for j in used[k] if (k, j) in layouts}
        if own:
            specs.append(UseSpec(k, node.name(), own, slots))
    return tuple(specs)


def _check_sorted(run: _Run) -> None:
    """Refuse uses whose cotangents mix samples.

    Raises:
        UnsupportedModelError: One does; the message names the operation nearest to it that keeps samples apart.
    """
    for node, ordered in run.labels.sorted.items():
        if not ordered:
            raise UnsupportedModelError(_mixing(run.graph, node))


def _outputs(run: _Run, index: int) -> list[int]:
    """Return the outputs of a candidate where cotangents arrive."""
    node = run.graph.nodes[index]
    return [j for j in run.graph.used_outputs(node) if (node, j) in run.labels.elements]


def _mixing(graph: Graph, node: Node) -> str:
    return (
        f"{_first_sorted(graph, node)} mixes samples (entries of the cotangent at {node.name()}, shape "
        f"{tuple(output_shape(node, 0))} for {graph.output.shape[0]} samples, belong to several): a per-sample kernel "
        "is not defined; remove the coupling (batch statistics?)"
    )


def _first_sorted(graph: Graph, node: Node) -> str:
    """Return the name of the nearest node above `node` whose own cotangent is still sorted by sample."""
    ordered = label(graph).sorted
    pending, seen = [node], {node}
    while pending:
        for consumer, _, _ in graph.consumers.get(pending.pop(0), ()):
            if ordered.get(consumer, False):
                return consumer.name()
            if consumer not in seen:
                seen.add(consumer)
                pending.append(consumer)
    return "the model"


def _layouts(places: Sequence[Place], small: _Run, large: Graph, graph: Callable[[int], Graph]) -> dict[Place, Layout]:
    """Return the one layout of every place that agrees with the shapes and labels of all runs.

    Places where the smallest run leaves several (cotangents that are zero have no label) are looked at in larger ones.

    Raises:
        _IrregularError: For some place none agrees, or several do.
    """
    left = {place: _agreeing(layouts_by_shape(small.graph, large, place), small, place) for place in places}
    for size in (large.output.shape[0], *_MORE_SIZES):
        unclear = [place for place, layouts in left.items() if len(layouts) > 1]
        if not unclear:
            break
        more = large if size == large.output.shape[0] else graph(size)
        if more.signature() != large.signature():
            raise _IrregularError
        run = _Run(more, tuple({index for index, _ in unclear}))
        left |= {place: _agreeing(left[place], run, place) for place in unclear}
    if any(len(layouts) != 1 for layouts in left.values()):
        raise _IrregularError
    return {place: layouts[0] for place, layouts in left.items()}


def _agreeing(candidates: list[Layout], run: _Run, place: Place) -> list[Layout]:
    labels = run.labels.elements.get((run.graph.nodes[place[0]], place[1]))
    return candidates if labels is None else [c for c in candidates if labels_agree(c, labels)]


def _metered(function: Function, batch: Batch) -> tuple[Graph, int, list[tuple[torch.Tensor, int]]]:
    """Return the graph of a batch, the bytes that it keeps, parameters left out, and what it keeps, with versions."""
    own = {p.untyped_storage().data_ptr() for p in function.model.parameters()}
    kept: dict[int, int] = {}
    saved: list[tuple[torch.Tensor, int]] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()  # an output of the node would keep the node alive by its history, and the node that
        if tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            if (address := storage.data_ptr()) not in own:
                kept[address] = storage.nbytes()
        saved.append((tensor, tensor._version))
        return tensor

    def unpack(tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        graph = function.graph(batch)
    return graph, sum(kept.values()), saved
