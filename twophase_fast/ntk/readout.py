"""The linear readout of a model with more outputs than features, cut off exactly.

Where the outputs are rows of z = W h (+ b) with W [V, D] and V > D, nothing but a selection of rows follows, and no
parameter reaches the outputs by another way (as a shortcut around the readout would let it), the gradient of output c
splits into the readout's own part, e_c h^T, and a part that comes through h:

    K[n,m,c,c'] = w_c K_h[n,m] w_c'^T + delta_cc' (h_n . h_m + 1)        (+ 1 with a bias)

K_h [N,M,D,D] is the kernel of the features: D pull-backs instead of V. With the thin QR W = Q R, the trace of the first
term is the trace kernel of R h. If W is also the table of the input embedding, with positions s of sample m at token
tok[m,s] and cotangents g there, the cross terms are

    X[n,m,c,c'] = sum_s [tok[m,s] = c] h_n . g[m,c',s]     and its mirror X[m,n,c',c],
    trace: h_n . u_m  with  u_m = sum_s g[m, tok[m,s], s],

from the same D pull-backs, since the cotangent of output c is sum_j Q[c,j] (that of direction j).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch.autograd.graph import GradientEdge

from twophase_fast import ops
from twophase_fast._types import UnsupportedModelError
from twophase_fast.ntk.accumulate import Accumulator
from twophase_fast.ntk.checks import Checks
from twophase_fast.ntk.cost import Method
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.graph import ACCUMULATE, Graph, Place
from twophase_fast.ntk.probe import Structure
from twophase_fast.ntk.route import Route, find_route
from twophase_fast.ntk.uses import UseSpec
from twophase_fast.rules.factors import Factor, Lookup
from twophase_fast.rules.layout import Layout

_BIAS, _ADDMM_WEIGHT, _MM_WEIGHT = 0, 2, 1
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Readout:
    """A readout that can be cut off.

    Attributes:
        node: Position of its node in the graph.
        layout: Where the node's output keeps its samples.
        input_slot: Slot of the features in the node.
        weight: Name of W, or None if it is not selected.
        bias: Name of b, or None if there is none or it is not selected.
        matrix: W [V, D], float64.
        uses: The uses of all other slots.
    """

    node: int
    layout: Layout
    input_slot: int
    weight: str | None
    bias: str | None
    matrix: torch.Tensor
    uses: tuple[UseSpec, ...]

    def features(self, graph: Graph, checks: Checks | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (rows of the node's output that are the samples' outputs [N], features h [N, D]).

        Args:
            graph: The graph of a batch.
            checks: Take the check of values, which are else looked at here.

        Raises:
            UnsupportedModelError: On this batch something else than a selection of rows follows the readout.
        """
        selected = _selected_rows(graph, self.node)
        if selected is None:
            _refuse_rows()
        rows, holds = selected
        if checks is not None:
            checks.require(holds, _refuse_rows)
        elif not bool(holds):
            _refuse_rows()
        node = graph.nodes[self.node]
        operand = node._saved_mat1 if node.name() == "AddmmBackward0" else node._saved_self
        return rows, operand.detach()[rows]


@dataclass(frozen=True)
class FeatureSeeds:
    """Pull-backs that start at the features: the same direction [D] for every sample."""

    graph: Graph
    readout: Readout
    rows: torch.Tensor
    directions: torch.Tensor

    def __len__(self) -> int:
        return self.directions.shape[0]

    @property
    def place(self) -> Place | None:
        """Where the features come from; None if from nothing that has a gradient."""
        return root_of(self.graph, self.readout)

    def cotangents(self, ks: slice) -> torch.Tensor:
        """Return the cotangents [k, *shape] of sum_i directions[k, i] h_i."""
        index, j = self.place
        meta, chosen = self.graph.nodes[index]._input_metadata[j], self.directions[ks]
        seeds = torch.zeros((len(chosen), *meta.shape), dtype=meta.dtype, device=self.rows.device)
        seeds.view(len(chosen), -1, seeds.shape[-1])[:, self.rows] = chosen.to(seeds).unsqueeze(1)
        return seeds


@dataclass(frozen=True)
class ReadoutFactor:
    """J[n,c] = e_c h_n^T plus, for a tied table, a `Lookup` in the pulled-back directions."""

    h: torch.Tensor
    tokens: torch.Tensor | None
    g: torch.Tensor | None
    shape: torch.Size
    kind = "readout"

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return self.h.shape[0]

    @property
    def operand(self) -> torch.Tensor:
        """The features h [N, D]."""
        return self.h

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """Positions S of the tied table (1 without), 0, and features D."""
        return (1 if self.tokens is None else self.tokens.shape[1]), 0, self.h.shape[1]

    @property
    def lookup(self) -> Lookup | None:
        """The tied table's factor, or None."""
        return None if self.tokens is None else Lookup(self.tokens, self.g, self.shape)

    def to(self, dtype: torch.dtype) -> ReadoutFactor:
        """Return the factor with its floating-point parts in `dtype`."""
        return replace(self, h=self.h.to(dtype), g=None if self.g is None else self.g.to(dtype))


def root_of(graph: Graph, readout: Readout | None) -> Place | None:
    """Return the place where the pull-back starts: the outputs, or a readout's features if they have a gradient."""
    if readout is None:
        return graph.index[graph.output.grad_fn], graph.output.output_nr
    node, j = graph.nodes[readout.node].next_functions[readout.input_slot]
    return None if node is None else (graph.index[node], j)


def route_of(structure: Structure, readout: Readout | None) -> Route:
    """Return the route of a whole pull-back through the probe's graph, which is found once."""
    key = None if readout is None else readout.node
    if key not in structure.routes:
        root = root_of(structure.graph, readout)
        uses = structure.uses if readout is None else readout.uses
        none = Route((), frozenset(), frozenset())
        structure.routes[key] = none if root is None else find_route(structure.graph, root, uses)
    return structure.routes[key]


def find_readout(function: Function, structure: Structure) -> Readout | None:
    """Return the readout of the model, if it has more outputs than features and can be cut off exactly."""
    for use in structure.uses:
        found = _as_readout(function, structure, use)
        if found is not None:
            return found
    return None


def _as_readout(function: Function, structure: Structure, use: UseSpec) -> Readout | None:
    graph = structure.graph
    node = graph.nodes[use.node]
    affine = use.name == "AddmmBackward0"
    if not affine and use.name != "MmBackward0":
        return None
    features = node._saved_mat1 if affine else node._saved_self
    weight_slot = _ADDMM_WEIGHT if affine else _MM_WEIGHT
    layout = use.layouts.get(0)
    if features is None or not isinstance(layout, Layout) or layout.axis != 0:
        return None
    if affine and (node._saved_alpha != 1 or node._saved_beta != 1):
        return None
    by_slot = {slot.slot: slot for slot in use.slots}
    known = set(by_slot) <= {weight_slot, *([_BIAS] if affine else [])}
    wide = tuple(node._input_metadata[0].shape)[1] == structure.outputs > features.shape[1]
    plain = all(_plain_source(graph, s.source, transposed=s.slot == weight_slot) for s in use.slots)
    if not (known and wide and plain) or not _selects_rows(graph, use.node):
        return None
    matrix = _weight_of(node, weight_slot)
    others = tuple(u for u in structure.uses if u.node != use.node)
    names = {slot: spec.leaves[0] for slot, spec in by_slot.items()}
    if matrix is None or not _ties_are_tables(others, names.get(weight_slot), names.get(_BIAS) if affine else None):
        return None
    if not graph.around(use.node).isdisjoint(other.node for other in others):
        return None
    return Readout(
        use.node,
        layout,
        1 if affine else 0,
        names.get(weight_slot),
        names.get(_BIAS) if affine else None,
        matrix.detach().double(),
        others,
    )


def _plain_source(graph: Graph, source: tuple[int, int], *, transposed: bool) -> bool:
    """Whether a slot holds a parameter itself, or its plain transpose."""
    node = graph.nodes[source[0]]
    if not transposed:
        return node.name() == ACCUMULATE
    return node.name() == "TBackward0" and node.next_functions[0][0].name() == ACCUMULATE


def _weight_of(node: torch.autograd.graph.Node, slot: int) -> torch.Tensor | None:
    """Return W [V, D] from the node: its saved operand, or the parameter behind the transpose."""
    saved = getattr(node, "_saved_mat2", None)
    if saved is not None:
        return saved.t()
    upstream = node.next_functions[slot][0]
    leaf = upstream.next_functions[0][0] if upstream is not None and upstream.next_functions else None
    return getattr(leaf, "variable", None)


def _ties_are_tables(others: Sequence[UseSpec], weight: str | None, bias: str | None) -> bool:
    """Whether W has no further use but one look-up, and b none."""
    uses = [u for u in others for s in u.slots if weight is not None and weight in s.leaves]
    if bias is not None and any(bias in s.leaves for u in others for s in u.slots):
        return False
    return len(uses) <= 1 and all(u.name == "EmbeddingBackward0" and u.layouts[0].axis is not None for u in uses)


def _refuse_rows() -> NoReturn:
    raise UnsupportedModelError("what follows the readout is not a selection of rows on this batch")


def _selects_rows(graph: Graph, index: int) -> bool:
    selected = _selected_rows(graph, index)
    return selected is not None and bool(selected[1])


def _selected_rows(graph: Graph, index: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the row of the node's output that each sample's output is, and a scalar: whether it is a selection.

    A cotangent of irregular numbers must arrive at exactly one row per sample, unchanged to the bit, and nowhere else.
    None: shapes alone say that it is no selection. Nothing here waits for a GPU.
    """
    y = graph.output
    v = _irregular(y)
    edge = GradientEdge(graph.nodes[index], 0)
    (arrived,) = torch.autograd.grad([y], [edge], [v], retain_graph=True, allow_unused=True)
    if arrived is None or arrived.dim() != 2 or arrived.shape[1] != v.shape[1]:
        return None
    if len(arrived) < len(v):
        return None
    met = (arrived != 0).any(1)
    rows = torch.argsort(met, descending=True, stable=True)[: len(v)]  # those that were met, in order
    return rows, (met.sum() == len(v)) & (arrived[rows] == v).all()


def _irregular(like: torch.Tensor) -> torch.Tensor:
    """Return numbers between 1 and 2 that no two neighbours share."""
    count = torch.arange(like.numel(), dtype=torch.float64, device=like.device)
    return (count * _GOLDEN % 1 + 1).view(like.shape).to(like.dtype)


class LiftedAccumulator:
    """A kernel over V outputs built from a kernel over D features and the readout's own terms.

    Args:
        readout: The readout that was cut off.
        directions: Directions [D, D] that are pulled back: R for a trace, the identity otherwise.
        output: `full`, `trace` or `diagonal`.
        symmetric: Whether there is one set of samples.
        make: `make(output)` returns an empty `Accumulator` over the D directions.
    """

    def __init__(
        self,
        readout: Readout,
        directions: torch.Tensor,
        output: str,
        *,
        symmetric: bool,
        make: Callable[[str], Accumulator],
    ) -> None:
        self.readout, self.output, self.symmetric = readout, output, symmetric
        self._body = make("trace" if output == "trace" else "full")
        self._through = torch.linalg.solve_triangular(directions, readout.matrix, upper=True, left=False)
        self._extra: torch.Tensor | None = None
        self._chunk = slice(0, len(directions))

    def select(self, chunk: slice) -> None:
        """Say which directions the factors added next belong to."""
        self._body.select(chunk)
        self._chunk = chunk

    def add(self, left: Factor | ReadoutFactor, right: Factor | ReadoutFactor | None, method: Method) -> None:
        """Add one parameter's block."""
        if not isinstance(left, ReadoutFactor):
            self._body.add(left, right, method)
            return
        if left.lookup is not None:
            self._body.add(left.lookup, None if right is None else right.lookup, "lookup")
        self._add_own(left, left if right is None else right)

    def flush(self) -> None:
        """Add what the body's accumulator has collected so far."""
        self._body.flush()

    def let_go(self) -> None:
        """Let go of the memory that the body's accumulator holds ready."""
        self._body.let_go()

    def kernel(self) -> torch.Tensor:
        """Return the finished kernel over V outputs."""
        body = self._body.kernel()
        matrix = self.readout.matrix.to(body)
        if self.output == "full":
            lifted = torch.einsum("ci,nmij,dj->nmcd", matrix, body, matrix)
        elif self.output == "diagonal":
            lifted = torch.stack([((matrix @ block) * matrix).sum(-1) for block in body.flatten(0, 1)])
            lifted = lifted.view(*body.shape[:2], -1)
        else:
            lifted = body
        total = lifted if self._extra is None else lifted + self._extra
        return self._mirrored(total) if self.symmetric else total

    def _mirrored(self, kernel: torch.Tensor) -> torch.Tensor:
        """Make a symmetric kernel symmetric to the bit."""
        n, m = kernel.shape[:2]
        if self.output == "trace":
            return ops.symmetrize_(kernel.contiguous())
        if self.output == "diagonal":
            return ops.symmetrize_(kernel.permute(2, 0, 1).contiguous()).permute(1, 2, 0)
        c = kernel.shape[2]
        flat = ops.symmetrize_(kernel.permute(0, 2, 1, 3).reshape(n * c, m * c))
        return flat.view(n, c, m, c).permute(0, 2, 1, 3)

    def _grow(self, products: torch.Tensor) -> None:
        """Add products [N, M] to every output with itself: delta_cc' products[n, m]."""
        outputs = self.readout.matrix.shape[0]
        if self.output == "trace":
            term = products * outputs
        elif self.output == "diagonal":
            term = products.unsqueeze(-1).expand(*products.shape, outputs)
        else:
            term = torch.diag_embed(products.unsqueeze(-1).expand(*products.shape, outputs))
        self._extra = term.clone() if self._extra is None else self._extra + term

    def _add_own(self, left: ReadoutFactor, right: ReadoutFactor) -> None:
        """Add e_c h^T with itself (once) and its cross terms with the tied table (every chunk)."""
        if self._chunk.start == 0:
            self._grow(left.h @ right.h.T)
        if left.lookup is None:
            return
        weights = self._through[:, self._chunk].to(left.h)
        forward = self._cross(left.h, right, weights)
        mirror = forward if left is right else self._cross(right.h, left, weights)
        swapped = mirror.permute(1, 0, 3, 2) if self.output == "full" else mirror.transpose(0, 1)
        self._extra = self._extra + forward + swapped

    def _cross(self, h: torch.Tensor, other: ReadoutFactor, weights: torch.Tensor) -> torch.Tensor:
        """Return X[n, m, ...] between features [N, D] and a tied table; the token V (padding) contributes nothing."""
        outputs = weights.shape[0]
        real = (other.tokens < outputs).to(h)
        tokens = other.tokens.clamp_max(outputs - 1)
        if self.output == "full":
            return self._cross_full(h, other, weights, tokens, real)
        chosen = weights[tokens] * real.unsqueeze(-1)  # [M, S, J]
        if self.output == "trace":
            return h @ torch.einsum("msj,mjsd->md", chosen, other.g).T
        at_token = torch.einsum("nd,msj,mjsd->nms", h, chosen, other.g)
        index = tokens.unsqueeze(0).expand_as(at_token)
        return h.new_zeros(len(h), len(tokens), outputs).scatter_add_(2, index, at_token)

    def _cross_full(
        self, h: torch.Tensor, other: ReadoutFactor, weights: torch.Tensor, tokens: torch.Tensor, real: torch.Tensor
    ) -> torch.Tensor:
        """Return X [N, M, V, V]."""
        outputs = len(weights)
        per_position = torch.einsum("nd,mjsd,cj->nmsc", h, other.g, weights) * real[None, :, :, None]
        index = tokens[None, :, :, None].expand_as(per_position)
        return h.new_zeros(len(h), len(tokens), outputs, outputs).scatter_add_(2, index, per_position)
