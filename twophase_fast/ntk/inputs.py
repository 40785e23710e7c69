"""A batch of samples as the caller gave it: one Tensor, a tuple of Tensors or a dict of Tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from twophase_fast._types import InputError
from twophase_fast.ntk.checks import all_finite


@dataclass(frozen=True)
class Batch:
    """Inputs (and targets) that share a leading sample axis.

    Attributes:
        x: Tensor (the model's only argument), tuple (positional arguments) or dict (keyword arguments).
        targets: A pytree of Tensors with the same leading axis, or None.
        size: Number of samples N.
    """

    x: Any
    targets: Any
    size: int

    def take(self, index: slice | torch.Tensor) -> Batch:
        """Return the samples at `index`."""
        x, targets = (pytree.tree_map_only(torch.Tensor, lambda t: t[index], v) for v in (self.x, self.targets))
        return Batch(x, targets, len(range(*index.indices(self.size))) if isinstance(index, slice) else len(index))

    def call(self, model: torch.nn.Module) -> Any:
        """Return the model's output on this batch."""
        if isinstance(self.x, Mapping):
            return model(**self.x)
        return model(*self.x) if isinstance(self.x, tuple) else model(self.x)

    def described(self) -> str:
        """Return every tensor's name, shape and dtype."""
        leaves = [*_named_leaves("x", self.x), *_named_leaves("targets", self.targets)]
        return ", ".join(f"{name} {tuple(leaf.shape)} {str(leaf.dtype)[6:]}" for name, leaf in leaves)


def check_targets(output_fn: Any, targets: Any, x2: Any, targets2: Any) -> None:
    """Refuse targets that nothing would read, and two sides of which only one has them.

    Raises:
        InputError: They do not go together.
    """
    if x2 is None and targets2 is not None:
        raise InputError("targets2 was given without x2; the symmetric kernel uses `targets` for both sides")
    if output_fn is None and (targets is not None or targets2 is not None):
        raise InputError("targets are given, but no output_fn(model_output, targets) that reads them; pass one")
    if x2 is not None and (targets is None) != (targets2 is None):
        given, missing = ("targets", "targets2") if targets2 is None else ("targets2", "targets")
        raise InputError(f"{given} was given without {missing}; output_fn needs them for x1 and x2 alike")


def make_batch(x: Any, targets: Any, *, name: str, device: torch.device) -> Batch:
    """Check a caller's inputs and wrap them.

    Raises:
        InputError: Not Tensors, no samples, differing numbers of samples, another device than the model, or
            values that are not finite.
    """
    if not isinstance(x, torch.Tensor | tuple | Mapping):
        raise InputError(
            f"{name} is a {type(x).__name__}; expected a Tensor, a tuple of Tensors (positional arguments) or a dict "
            "of Tensors (keyword arguments), each with the samples on its first axis"
        )
    batch_x = dict(x) if isinstance(x, Mapping) else x
    sizes = [_check_leaf(label, leaf, device) for label, leaf in _named_leaves(name, batch_x)]
    if not sizes:
        raise InputError(f"{name} holds no Tensor; the model's inputs are expected")
    target_name = name.replace("x", "targets")
    sizes += [_check_leaf(label, leaf, device) for label, leaf in _named_leaves(target_name, targets)]
    if len({size for _, size in sizes}) != 1:
        listed = ", ".join(f"{label}: {size}" for label, size in sizes)
        raise InputError(f"numbers of samples differ ({listed}); every input and target needs the same first axis")
    if sizes[0][1] == 0:
        raise InputError(f"{name} has no samples: its first axis has size 0")
    return Batch(batch_x, targets, sizes[0][1])


def _named_leaves(name: str, tree: Any) -> list[tuple[str, Any]]:
    leaves = pytree.tree_flatten_with_path(tree)[0]
    return [(name + pytree.keystr(path), leaf) for path, leaf in leaves if leaf is not None]


def _check_leaf(label: str, leaf: Any, device: torch.device) -> tuple[str, int]:
    if not isinstance(leaf, torch.Tensor):
        raise InputError(f"{label} is a {type(leaf).__name__}; a Tensor with the samples on its first axis is expected")
    if leaf.dim() == 0:
        raise InputError(f"{label} is a scalar Tensor; it needs a first axis over samples (shape [N, ...])")
    if leaf.device != device:
        raise InputError(f"{label} is on {leaf.device}, the model on {device}; move it with .to({str(device)!r})")
    if leaf.is_floating_point() and not bool(all_finite(leaf)):
        bad = int((~torch.isfinite(leaf)).flatten(1).any(1).nonzero()[0]) if leaf.dim() > 1 else 0
        raise InputError(f"{label} has NaN or infinite values (first in sample {bad}); remove or repair that sample")
    return label, leaf.shape[0]
