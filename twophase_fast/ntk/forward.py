"""One eager forward pass: model, batch and `output_fn` to a Tensor [N, C] that knows its graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import nn

from twophase_fast._types import InputError, UnsupportedModelError
from twophase_fast.ntk.checks import Checks, all_finite
from twophase_fast.ntk.graph import Graph, walk
from twophase_fast.ntk.guards import check_nodes, deterministic_forward
from twophase_fast.ntk.inputs import Batch

_BATCH_NORM = "NativeBatchNormBackward0"


@dataclass(frozen=True)
class Function:
    """The function f whose kernel is wanted: a model and what to read off its output.

    Attributes:
        model: Any `nn.Module`.
        output_fn: `output_fn(model_output[, targets])` -> [N, C] or [N], or None for the output (or its `.logits`).
        parameters: Selected parameters by name.
    """

    model: nn.Module
    output_fn: Callable[..., torch.Tensor] | None
    parameters: dict[str, torch.Tensor]

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(iter(self.parameters.values())).device

    @cached_property
    def dtype(self) -> torch.dtype:
        """Dtype of the kernel: float64 for float64 parameters, else float32."""
        double = any(p.dtype == torch.float64 for p in self.parameters.values())
        return torch.float64 if double else torch.float32

    @cached_property
    def eps(self) -> float:
        """Rounding of the coarsest dtype that the model has parameters in, selected or not."""
        every = (*self.parameters.values(), *self.model.parameters())
        return max(torch.finfo(p.dtype).eps for p in every if p.is_floating_point() or p.is_complex())

    def graph(self, batch: Batch, checks: Checks | None = None) -> Graph:
        """Run the model on `batch` and walk the graph of its output [N, C].

        Args:
            batch: The samples.
            checks: Take the check of the output's values, which are else looked at here.

        Raises:
            UnsupportedModelError: The function is random, mixes samples, or depends on no selected parameter.
            InputError: The output is not [N] or [N, C], or holds NaN or infinite values.
        """
        with torch.enable_grad(), deterministic_forward(self.device):
            output = self.outputs(batch)
        output = self._checked(output, batch.size)
        given = output.detach()
        if checks is None and not bool(all_finite(given)):
            _refuse(given)
        if checks is not None:
            checks.require(all_finite(given), lambda: _refuse(given))
        graph = walk(output)
        check_nodes(graph.names)
        if batch.size == 1:
            _order_cotangents(graph)
        return graph

    def outputs(self, batch: Batch) -> Any:
        """Return what the model and `output_fn` give on `batch`, unchecked."""
        called = "the model"
        try:
            raw = batch.call(self.model)
            if self.output_fn is not None:
                called = "output_fn with targets" if batch.targets is not None else "output_fn without targets"
                return self.output_fn(raw) if batch.targets is None else self.output_fn(raw, batch.targets)
        except Exception as error:
            samples = f"{batch.size} of the samples: {batch.described()}"
            error.add_note(f"twophase_fast called {called} on {samples}; the first axis of each is that of the samples")
            raise
        return raw if isinstance(raw, torch.Tensor) else getattr(raw, "logits", raw)

    def _checked(self, output: Any, size: int) -> torch.Tensor:
        if not isinstance(output, torch.Tensor):
            raise InputError(
                f"the model returned a {type(output).__name__}; pass output_fn to pick a Tensor [N] or [N, C] from it"
            )
        shape = tuple(output.shape)
        if output.dim() not in (1, 2) or shape[0] != size:
            raise InputError(
                f"the output has shape {shape} for {size} samples; expected [N] or [N, C]: pass output_fn to pick one"
            )
        if not output.is_floating_point():
            raise InputError(f"the output has dtype {output.dtype}; a real floating-point output is expected")
        if output.grad_fn is None:
            raise UnsupportedModelError(
                "the output depends on no parameter that requires grad; the kernel would be empty"
            )
        with torch.enable_grad():
            return output if output.dim() == 2 else output.unsqueeze(1)


def _order_cotangents(graph: Graph) -> None:
    """Let batch normalisation (and `InstanceNorm`, which runs as that) see contiguous cotangents.

    torch's own backward on a CPU mixes up channels where a batch of one has cotangents of another order in memory, such
    as those of the transposed view in `norm(x).flatten(2).transpose(1, 2).flatten(1)` (seen in torch 2.13).
    """
    for node, name in zip(graph.nodes, graph.names):
        if name == _BATCH_NORM:
            node.register_prehook(_contiguous)


def _contiguous(cotangents: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor | None, ...]:
    return tuple(None if g is None else g.contiguous() for g in cotangents)


def _refuse(output: torch.Tensor) -> NoReturn:
    """Say which sample's output is not finite.

    Raises:
        InputError: Always.
    """
    bad = int((~torch.isfinite(output)).any(1).nonzero()[0])
    raise InputError(
        f"the model's output has NaN or infinite values (first in sample {bad}); its kernel is not defined"
    )
