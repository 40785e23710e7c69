"""Conditions on tensors: looked at as they come on a CPU, all together at the end of a block on a GPU.

Looking at a value makes the host wait for the GPU, which then waits for the host in turn; while a tile is computed
nobody looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from twophase_fast._types import UnsupportedModelError

_SAME = 20.0

Failure = Callable[[], object]
"""Raises an exception that says what is wrong."""


def is_asynchronous(device: torch.device) -> bool:
    """Return whether work on a device goes on while the host does something else."""
    return device.type == "cuda"


class Checks:
    """Conditions that shall hold.

    Args:
        device: Where the tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        self._later = is_asynchronous(device)
        self._pending: list[tuple[torch.Tensor, Failure]] = []

    def require(self, holds: torch.Tensor, fail: Failure) -> None:
        """Call `fail` if the scalar `holds` is false, now or when the checks are settled."""
        if self._later:
            self._pending.append((holds, fail))
        elif not bool(holds):
            fail()

    def settle(self) -> None:
        """Look at everything that was put off, in order; may be called again after a CUDA graph has run again."""
        if not self._pending:
            return
        held = torch.stack([holds for holds, _ in self._pending]).tolist()
        for fail in [fail for holds, (_, fail) in zip(held, self._pending) if not holds]:
            fail()


def all_finite(tensor: torch.Tensor) -> torch.Tensor:
    """Return a scalar: whether no entry is NaN or infinite.

    On a CPU a finite sum says so in one pass; finite entries whose sum overflows are looked at one by one. On a GPU the
    smallest and the largest entry say so (NaN is both), which takes no memory.
    """
    entries = tensor.detach()
    if not entries.numel():
        return torch.ones((), dtype=torch.bool, device=entries.device)
    if is_asynchronous(entries.device):
        return torch.isfinite(entries.amin()) & torch.isfinite(entries.amax())
    if math.isfinite(entries.sum()):
        return torch.ones((), dtype=torch.bool)
    return torch.isfinite(entries).all()


def same_rows(given: torch.Tensor, expected: torch.Tensor, eps: float) -> torch.Tensor:
    """Return a scalar: whether outputs of the same samples in two batches differ by no more than rounding.

    `eps` is the rounding of the coarsest part of the model; a coarser output counts as such a part.
    """
    limits = torch.finfo(expected.dtype)
    scale = expected.abs().max().clamp_min(limits.tiny)
    return (given - expected).abs().max() <= _SAME * max(eps, limits.eps) ** 0.5 * scale


def require_finite(checks: Checks, tensor: torch.Tensor, name: str, where: str = "") -> torch.Tensor:
    """Return the Jacobian or kernel of the parameter `name`, required to be finite."""

    def fail() -> None:
        raise UnsupportedModelError(
            f"the Jacobian of {name!r} has NaN or infinite entries{where}, so its kernel is not defined; look for a "
            "square root or division at zero on the way to the output"
        )

    checks.require(all_finite(tensor), fail)
    return tensor
