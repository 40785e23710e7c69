"""Launch configurations as data: what a kernel is compiled and launched with, and which one a call takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from twophase_fast import settings
from twophase_fast.ops._triton import autotune

Key: TypeAlias = tuple[str, ...]
"""What a default depends on, such as (platform, mode, dtype, shape class); every op says which."""


@dataclass(frozen=True)
class Launch:
    """One launch configuration.

    Attributes:
        constants: Compile-time constants of the kernel, such as block sizes, by name.
        num_warps: Groups of 32 (AMD: 64) threads per program.
        num_stages: Loads in flight in the main loop, plus one.
    """

    constants: tuple[tuple[str, int], ...]
    num_warps: int = 4
    num_stages: int = 3

    def __getitem__(self, name: str) -> int:
        return dict(self.constants)[name]

    def __str__(self) -> str:
        blocks = "x".join(str(value) for _, value in self.constants)
        return f"{blocks} w{self.num_warps} s{self.num_stages}"

    def arguments(self) -> dict[str, int]:
        """Return the keyword arguments of a launch."""
        return {**dict(self.constants), "num_warps": self.num_warps, "num_stages": self.num_stages}


def launch(*, num_warps: int = 4, num_stages: int = 3, **constants: int) -> Launch:
    """Return a launch configuration with the kernel's constants as keywords."""
    return Launch(tuple(constants.items()), num_warps, num_stages)


@dataclass(frozen=True)
class LaunchTable:
    """The launch configurations of one op.

    Attributes:
        op: Name of the op.
        rows: Candidates by key; the first is the default, autotuning times them all.
        interpreted: Tiny blocks for the interpreter, where small inputs shall still span several blocks.
    """

    op: str
    rows: Mapping[Key, Sequence[Launch]]
    interpreted: Launch

    def choose(
        self, key: Key, sizes: Sequence[int], device: torch.device, trial: Callable[[Launch], Any] | None = None
    ) -> Launch:
        """Return the configuration of a call.

        Args:
            key: Row of the table.
            sizes: Sizes of the problem; calls whose sizes have the same powers of two share a measurement.
            device: Where the tensors are.
            trial: Runs the call with a configuration, without effect on its results; None to take the default.
        """
        if device.type == "cpu":
            return self.interpreted
        candidates = self.rows[key]
        if trial is None or len(candidates) == 1 or not settings.autotune():
            return candidates[0]
        return candidates[
            autotune.best(self.op, key, sizes, [str(c) for c in candidates], lambda i: trial(candidates[i]))
        ]

    def all(self) -> list[tuple[Key, Launch]]:
        """Return every row's every candidate."""
        return [(key, candidate) for key, candidates in self.rows.items() for candidate in candidates]
