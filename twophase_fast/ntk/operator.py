"""`NTKOperator`: products with a kernel that is never formed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import nn

from twophase_fast._types import BackendError, InputError, ParameterFilter, Precision
from twophase_fast.ntk.directional import WAYS, choose_way
from twophase_fast.ntk.flat import FlatParameters
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.guards import check_model, preserved
from twophase_fast.ntk.inputs import Batch, check_targets, make_batch
from twophase_fast.ntk.memory import DEFAULT_SHARE, free_bytes, parse_bytes
from twophase_fast.ntk.parameters import select_parameters
from twophase_fast.ntk.probe import probe

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

_TRANSIENT_BYTES = 512 * 2**20
_TILE = 256
# Bytes of one tile's graphs and intermediates, in units of what a forward keeps (measured, rounded up); by factors, the
# cotangents of every output are kept as well.
_KEPT = {"forward-mode": 1.5, "double-VJP": 2.5, "factors": 2.0}


class NTKOperator:
    """The empirical Neural Tangent Kernel as a linear map, without forming it.

        op @ v = K v = J (J^T v),    K = as_matrix(entk(model, x)) [N*C, N*C],    J [N*C, P]

    Rows are sample-major (row n*C + c is output c of sample n), as in `as_matrix`. J^T v is one pull-back per tile of
    samples. J w is a forward pass with tangents, a derivative of the pull-back, or a product with J's factors: `way`
    names the first that works for the model. Nothing of size P * N or N^2 is held.

    The operator follows the model: it uses the parameters as they are at each product. Model, gradients, buffers and
    random generators are as before afterwards.

    Args:
        model: As in `entk`, like every argument below.
        x: N samples.
        output_fn: Reads [N, C] or [N] off the model's output; [N] counts as C = 1, and `jvp` then returns [N].
        targets: Passed to `output_fn`.
        params: Parameters to differentiate.
        precision: As in `entk`.
        memory_budget: Bytes a product may take over model and inputs; decides the tile. Default: half of what is free.

    Attributes:
        shape: (N*C, N*C).
        dtype: float64 for float64 parameters, else float32.
        device: The model's device.
        outputs: C.
        num_parameters: P, the entries of the selected parameters.
        way: How J w is computed: `forward-mode`, `double-VJP` or `factors`.
        tile: Samples per forward pass.

    Raises:
        InputError: Bad inputs or options, or a budget too small for one sample.
        UnsupportedModelError: No exact per-sample kernel exists.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Any,
        *,
        output_fn: Callable[..., torch.Tensor] | None = None,
        targets: Any = None,
        params: ParameterFilter = None,
        precision: Precision = "highest",
        memory_budget: int | str | None = None,
    ) -> None:
        if precision not in get_args(Precision):
            raise InputError(f"precision={precision!r} is not one of {', '.join(get_args(Precision))}")
        budget = parse_bytes(memory_budget)
        check_targets(output_fn, targets, None, None)
        check_model(model)
        self._function = Function(model, output_fn, select_parameters(model, params))
        self._batch = make_batch(x, targets, name="x", device=self._function.device)
        self.dtype, self.device = self._function.dtype, self._function.device
        self._flat = FlatParameters(self._function.parameters, dtype=self.dtype, device=self.device)
        with self._session():
            self._structure = probe(self._function, self._batch)
            self._vector_output = self._function.outputs(self._batch.take(slice(0, 1))).dim() == 1
            self.way = choose_way(self._function, self._structure, self._batch)
        self.outputs, self.num_parameters = self._structure.outputs, self._flat.size
        self.shape = (self._batch.size * self.outputs,) * 2
        self._budget = int(free_bytes(self.device) * DEFAULT_SHARE) if budget is None else budget
        self.tile = self._choose_tile()

    def __repr__(self) -> str:
        rows = f"{self._batch.size}*{self.outputs}"
        return f"NTKOperator({rows} x {rows}, {self.num_parameters} parameters, {self.way}, tile={self.tile})"

    def __matmul__(self, v: torch.Tensor) -> torch.Tensor:
        """Return K v for a vector [N*C] or a block of columns [N*C, B].

        Raises:
            InputError: Not such a Tensor.
        """
        if not isinstance(v, torch.Tensor) or v.dim() not in (1, 2) or v.shape[0] != self.shape[0]:
            raise InputError(f"op @ v takes a Tensor ({self.shape[0]},) or ({self.shape[0]}, B); got {_describe(v)}")
        rows = v.detach().to(self.device, self.dtype).reshape(self.shape[0], -1).T
        with self._session():
            parts = [self._push(self._pull(part)) for part in rows.split(self._columns())]
        product = torch.cat([part.flatten(1) for part in parts]) if parts else rows
        return product.T.reshape(v.shape)

    def vjp(self, u: torch.Tensor, *, as_dict: bool = False) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return J^T u, the gradient of <u, f>: a flat vector [P], or a dict name -> Tensor.

        Args:
            u: [N, C], or [N*C] (for [N] outputs: [N]).
            as_dict: Return the parts by parameter name.

        Returns:
            A vector [P] in the order of `model.named_parameters()`, row-major, or its parts in the parameters' shapes.

        Raises:
            InputError: `u` has another shape.
        """
        if not isinstance(u, torch.Tensor) or u.shape not in ((self._batch.size, self.outputs), (self.shape[0],)):
            expected = f"({self._batch.size}, {self.outputs}) or ({self.shape[0]},)"
            raise InputError(f"vjp takes a Tensor {expected}; got {_describe(u)}")
        with self._session():
            flat = self._pull(u.detach().to(self.device, self.dtype).reshape(1, -1))[0]
        return self._flat.views(flat) if as_dict else flat

    def jvp(self, v: torch.Tensor | Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return J v, the derivative of all outputs along a direction in parameter space: [N, C], or [N].

        Args:
            v: A flat vector [P] in the order of `vjp`, or a dict name -> Tensor (names left out count as zero).

        Raises:
            InputError: Wrong shape or unknown names.
        """
        flat = self._flat.flatten(v)
        with self._session():
            result = self._push(flat.unsqueeze(0))[0]
        return result.squeeze(1) if self._vector_output else result

    def to_scipy(self) -> LinearOperator:
        """Return the operator for SciPy, as in `scipy.sparse.linalg.eigsh(op.to_scipy(), k=10)`; NumPy in and out.

        Raises:
            BackendError: SciPy is not installed.
        """
        try:
            from scipy.sparse.linalg import LinearOperator
        except ImportError as error:
            raise BackendError("to_scipy needs SciPy: pip install 'twophase_fast[spectrum]'") from error

        def apply(array: np.ndarray) -> np.ndarray:
            return (self @ torch.from_numpy(np.array(array, order="C"))).cpu().numpy()

        dtype = np.float64 if self.dtype == torch.float64 else np.float32
        return LinearOperator(self.shape, matvec=apply, rmatvec=apply, matmat=apply, rmatmat=apply, dtype=dtype)

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Check the model's state, and restore it afterwards."""
        check_model(self._function.model)
        with preserved(self._function.model, self.device):
            yield

    def _tiles(self) -> Iterator[tuple[slice, Batch]]:
        for start in range(0, self._batch.size, self.tile):
            piece = slice(start, min(start + self.tile, self._batch.size))
            yield piece, self._batch.take(piece)

    def _pull(self, rows: torch.Tensor) -> torch.Tensor:
        """Return J^T u [B, P] for rows u [B, N*C]."""
        rows = rows.reshape(len(rows), self._batch.size, self.outputs)
        pulled = torch.zeros(len(rows), self.num_parameters, dtype=self.dtype, device=self.device)
        leaves = list(self._function.parameters.values())
        views = [list(self._flat.views(row).values()) for row in pulled]
        for piece, tile in self._tiles():
            output = self._function.graph(tile).output
            for row, parts in zip(rows, views):
                u = row[piece].to(output)
                grads = torch.autograd.grad(output, leaves, u, retain_graph=True, allow_unused=True)
                for part, grad in zip(parts, grads):
                    if grad is not None:
                        part += grad
        return pulled

    def _push(self, flats: torch.Tensor) -> torch.Tensor:
        """Return J w [B, N, C] for directions w [B, P]."""
        directions = [self._flat.views(flat) for flat in flats]
        push = WAYS[self.way]
        shape = (len(flats), self._batch.size, self.outputs)
        pushed = torch.empty(shape, dtype=self.dtype, device=self.device)
        for piece, tile in self._tiles():
            for row, result in zip(pushed, push(self._function, self._structure, tile, directions)):
                row[piece] = result
        return pushed

    def _columns(self) -> int:
        """Return how many columns of a block are treated together: a quarter of the budget in directions [B, P]."""
        return max(1, self._budget // (4 * self.num_parameters * self.dtype.itemsize))

    def _choose_tile(self) -> int:
        """Return the samples per forward pass.

        Raises:
            InputError: Not one sample fits.
        """
        itemsize = self.dtype.itemsize
        vectors = 3 * self.num_parameters * itemsize + 4 * self.shape[0] * itemsize
        kept = _KEPT[self.way] + (self.outputs if self.way == "factors" else 0)
        per_sample = int(kept * self._structure.saved_bytes)
        fitting = (min(self._budget - vectors, _TRANSIENT_BYTES)) // max(per_sample, 1)
        if fitting < 1 and self._budget < vectors + per_sample:
            raise InputError(
                f"memory_budget={self._budget} bytes is too small for this operator; the smallest that works is "
                f"{vectors + per_sample} bytes over model and inputs"
            )
        return int(min(max(fitting, 1), _TILE, self._batch.size))


def _describe(value: Any) -> str:
    return f"a Tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
