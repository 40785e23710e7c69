"""`entk`: the exact empirical Neural Tangent Kernel of any ordinary module."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from twophase_fast._types import InputError, Output, ParameterFilter, Precision, UnsupportedModelError
from twophase_fast.ntk.accumulate import Accumulator
from twophase_fast.ntk.capture import capture
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.guards import check_model, preserved
from twophase_fast.ntk.inputs import Batch, make_batch
from twophase_fast.ntk.parameters import select_parameters
from twophase_fast.ntk.probe import Structure, probe
from twophase_fast.rules.factors import Factor, concat

_OUTPUTS = ("full", "trace", "diagonal", "sum")
_PRECISIONS = ("highest", "high", "medium")
_SLICE_BYTES = 256 * 2**20


@dataclass
class Info:
    """What a call of `entk` did.

    Attributes:
        precision: The precision that ran (`highest` wherever there is no faster unit).
        seconds: Stage -> seconds: `probe`, `capture`, `gram`.
        methods: Parameter name -> method of its Gram block.
        outputs: Number of outputs C.
        tile: Samples per tile.
    """

    precision: Precision
    outputs: int = 0
    tile: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)


def entk(
    model: nn.Module,
    x1: Any,
    x2: Any = None,
    *,
    output: Output = "full",
    output_fn: Callable[..., torch.Tensor] | None = None,
    targets: Any = None,
    targets2: Any = None,
    params: ParameterFilter = None,
    per_parameter: bool = False,
    precision: Precision = "highest",
    tile: int | None = None,
    return_info: bool = False,
) -> Any:
    """Return the empirical Neural Tangent Kernel, exactly.

        K[n, m, c, c'] = < df_c(x1_n) / dtheta , df_c'(x2_m) / dtheta >

    The model is used as it is: nothing is wrapped, hooked or changed, and flags, gradients, buffers and random
    generators are as before afterwards. Only cotangents at layer outputs are pulled back.

    Args:
        model: Any `nn.Module` that treats samples independently (BatchNorm and dropout in eval mode).
        x1: N samples: a Tensor, a tuple of Tensors (positional arguments) or a dict of Tensors (keyword arguments),
            each with the samples on its first axis.
        x2: M samples in the same form, or None for the symmetric kernel of x1.
        output: `full` [N, M, C, C]; `trace` [N, M], the sum over c of K[n,m,c,c] (a sum, not a mean); `diagonal`
            [N, M, C]; `sum` [N, M], the kernel of sum_c f_c / sqrt(C) (pseudo-NTK).
        output_fn: `output_fn(model_output[, targets])` -> [N, C] or [N]; default: the output itself, or its `.logits`.
        targets: Passed to `output_fn` for x1: a pytree of Tensors with the samples on their first axis.
        targets2: The same for x2.
        params: Parameters to differentiate: None (all that require grad), globs, or a predicate on the name.
        per_parameter: Return a dict name -> kernel instead; the values sum to K. A tied weight has one entry, under
            its first name.
        precision: `highest` is IEEE float32 (float64 for float64 models); `high` and `medium` allow faster units
            where the hardware has them and are `highest` elsewhere.
        tile: Samples per forward pass; default: chosen from the model's size.
        return_info: Also return an `Info`.

    Returns:
        A detached Tensor on the model's device, float64 if a parameter is float64, else float32. With
        `per_parameter`, a dict of such Tensors; with `return_info`, a pair of the result and an `Info`.

    Raises:
        InputError: Bad inputs: not finite, wrong shapes, devices, dtypes or options.
        UnsupportedModelError: No exact per-sample kernel exists (samples coupled, randomness, no parameters).

    Source:
        Jacot, Gabriel and Hongler (2018), arXiv 1806.07572; the sum over parameter uses follows Novak, Sohl-Dickstein
        and Schoenholz (2022), arXiv 2206.08720.
    """
    _check_options(output, precision, tile, x2, targets2)
    check_model(model)
    function = Function(model, output_fn, select_parameters(model, params))
    left = make_batch(x1, targets, name="x1", device=function.device)
    right = None if x2 is None else make_batch(x2, targets2, name="x2", device=function.device)
    with preserved(model, function.device):
        run = _Run(function, left, right, output, tile)
        kernels = run.kernels(per_parameter=per_parameter)
    result = kernels if per_parameter else kernels[""]
    return (result, run.info) if return_info else result


def _check_options(output: str, precision: str, tile: int | None, x2: Any, targets2: Any) -> None:
    if output not in _OUTPUTS:
        raise InputError(f"output={output!r} is not one of {', '.join(_OUTPUTS)}")
    if precision not in _PRECISIONS:
        raise InputError(f"precision={precision!r} is not one of {', '.join(_PRECISIONS)}")
    if tile is not None and (not isinstance(tile, int) or tile < 1):
        raise InputError(f"tile={tile!r}; expected a positive number of samples")
    if x2 is None and targets2 is not None:
        raise InputError("targets2 was given without x2; the symmetric kernel uses `targets` for both sides")


class _Run:
    """One computation: probe both sides, capture factors tile by tile, add Gram blocks."""

    def __init__(self, function: Function, left: Batch, right: Batch | None, output: str, tile: int | None) -> None:
        self.function, self.left, self.right = function, left, right
        self.summed, self.output = output == "sum", "trace" if output == "sum" else output
        self.tile = tile
        self.info = Info("highest")

    def kernels(self, *, per_parameter: bool) -> dict[str, torch.Tensor]:
        """Return name -> kernel, under the empty name for the sum over parameters."""
        left = self._factors(self.left)
        right = None if self.right is None else self._factors(self.right)
        started = time.perf_counter()
        total: Accumulator | None = None if per_parameter else self._accumulator()
        kernels: dict[str, torch.Tensor] = {}
        for name in self.function.parameters:
            accumulator = total or self._accumulator()
            self._add(accumulator, name, left.pop(name, None), None if right is None else right.pop(name, None))
            if per_parameter:
                kernels[name] = _check_finite(accumulator.kernel(), name)
        if total is not None:
            kernels[""] = total.kernel()
        self.info.seconds["gram"] = time.perf_counter() - started
        if total is not None and not bool(torch.isfinite(kernels[""]).all()):
            self._name_culprit()
        return kernels

    def _add(
        self, accumulator: Accumulator, name: str, left: list[Factor | None] | None, right: list[Factor | None] | None
    ) -> None:
        if left is None or (self.right is not None and right is None):
            self.info.methods[name] = "unused"
            return
        self.info.methods[name] = accumulator.add(self._joined(left, self.left), self._joined(right, self.right))

    def _joined(self, tiles: list[Factor | None] | None, batch: Batch | None) -> Factor | None:
        return None if tiles is None else concat(tiles, [s.stop - s.start for s in self._tiles(batch)])

    def _tiles(self, batch: Batch) -> list[slice]:
        size = self.tile or batch.size
        return [slice(start, min(start + size, batch.size)) for start in range(0, batch.size, size)]

    def _accumulator(self) -> Accumulator:
        columns = None if self.right is None else self.right.size
        return Accumulator(
            self.output,
            self.left.size,
            columns,
            1 if self.summed else self.info.outputs,
            dtype=self.function.dtype,
            device=self.function.device,
            slice_bytes=_SLICE_BYTES,
        )

    def _factors(self, batch: Batch) -> dict[str, list[Factor | None]]:
        """Return parameter name -> factors of every tile of `batch`."""
        started = time.perf_counter()
        structure = probe(self.function, batch)
        self._check_outputs(structure)
        probed = time.perf_counter()
        tiles = [
            capture(self.function, batch.take(piece), structure, summed=self.summed, first=piece.start == 0)
            for piece in self._tiles(batch)
        ]
        names = [name for name in self.function.parameters if any(name in tile for tile in tiles)]
        parts = {name: [tile.pop(name, None) for tile in tiles] for name in names}
        seconds = self.info.seconds
        seconds["probe"] = seconds.get("probe", 0) + probed - started
        seconds["capture"] = seconds.get("capture", 0) + time.perf_counter() - probed
        self.info.tile = self.tile or batch.size
        return parts

    def _check_outputs(self, structure: Structure) -> None:
        if self.info.outputs not in (0, structure.outputs):
            raise InputError(f"x1 gives {self.info.outputs} outputs and x2 gives {structure.outputs}; they must agree")
        self.info.outputs = structure.outputs

    def _name_culprit(self) -> None:
        """Say which parameter's Jacobian is not finite, and for which sample.

        Raises:
            UnsupportedModelError: Always; where every Jacobian is finite it says that their products overflow.
        """
        for label, batch in (("x1", self.left), ("x2", self.right)):
            for n in range(0 if batch is None else batch.size):
                piece = batch.take(slice(n, n + 1))
                structure = probe(self.function, piece)
                for name, factor in capture(self.function, piece, structure, summed=self.summed).items():
                    _check_finite(factor.dense(), name, f" for sample {n} of {label}")
        raise UnsupportedModelError(
            "the kernel has NaN or infinite entries though every Jacobian is finite: their products overflow; rescale "
            "the outputs or use float64"
        )


def _check_finite(tensor: torch.Tensor, name: str, where: str = "") -> torch.Tensor:
    """Return `tensor`, or refuse it.

    Raises:
        UnsupportedModelError: It holds NaN or infinite entries.
    """
    if not bool(torch.isfinite(tensor).all()):
        raise UnsupportedModelError(
            f"the Jacobian of {name!r} has NaN or infinite entries{where}, so its kernel is not defined; look for a "
            "square root or division at zero on the way to the output"
        )
    return tensor
