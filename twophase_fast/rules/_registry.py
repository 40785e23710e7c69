"""The table of rules and what a rule is handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from twophase_fast.rules.layout import AnyLayout

if TYPE_CHECKING:
    from twophase_fast.rules.factors import Factor


@dataclass
class Use:
    """One parameter slot of one autograd node, with the cotangents at the node's outputs.

    Attributes:
        node: The autograd node; its `_saved_*` fields hold the operands.
        slot: Index into `node.next_functions` of the parameter (or derived tensor).
        shape: Shape of the tensor in the slot.
        layouts: Output index -> layout of that output.
        cotangents: Output index -> [N, C, *before, outer, inner, *after] (see `Layout.by_sample`).
    """

    node: torch.autograd.graph.Node
    slot: int
    shape: torch.Size
    layouts: dict[int, AnyLayout]
    cotangents: dict[int, torch.Tensor]

    @property
    def layout(self) -> AnyLayout:
        """Layout of the node's first output."""
        return self.layouts[0]

    @property
    def g(self) -> torch.Tensor:
        """Cotangents of the node's first output, [N, C, *before, outer, inner, *after]."""
        return self.cotangents[0]

    def rows(self) -> torch.Tensor:
        """Return the cotangents as [N, C, T, p]: all axes but the last joined into positions."""
        g = self.g
        return g.reshape(g.shape[0], g.shape[1], -1, g.shape[-1])

    def saved_rows(self, operand: torch.Tensor) -> torch.Tensor:
        """Return a saved operand that shares the output's row axes as [N, T, d]."""
        a = self.layout.by_sample(operand.detach())
        return a.reshape(a.shape[0], -1, a.shape[-1])


Rule = Callable[[Use], "Factor | None"]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule for the autograd nodes called `names`.

    The function returns a factor of the slot's tensor, or None where it does not cover this use (the generic rule
    then takes it).
    """

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register
