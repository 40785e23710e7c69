"""What one file of a trajectory holds, in memory: the writer takes it, the reader gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Probe = torch.Tensor | tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor]


@dataclass
class KernelStack:
    """Kernels of equal shape and dtype at several steps, loaded one at a time.

    Attributes:
        shape: Shape of one kernel, `[N, M]`, `[N, M, C]` or `[N, M, C, C]`.
        dtype: NumPy name of the dtype.
        packed: Stored as upper triangles.
        steps: Steps, increasing.
        load: Gives the stored form of the kernel at a step.
    """

    shape: tuple[int, ...]
    dtype: str
    packed: bool
    steps: list[int]
    load: Callable[[int], np.ndarray]


@dataclass
class Content:
    """Everything one file adds to one node (the root or a child) of a trajectory."""

    attrs: dict[str, Any] = field(default_factory=dict)
    kernels: KernelStack | None = None
    parameters: dict[int, Callable[[], Mapping[str, torch.Tensor]]] = field(default_factory=dict)
    metrics: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    tables: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


@dataclass
class Header:
    """What every file says about the run it belongs to, and what only the first one carries.

    Attributes:
        run_id: Same in all files of one run.
        part: Name of the part, or "packed".
        overwrites: The run may replace a packed file of another run.
        keep: Keep policy.
        references: Steps kept under `keep="references"`.
        packed_parts: Parts that a packed file already contains.
        config: Plain nested values, or None where this file has none.
        provenance: One entry per writing session.
        probe: Probe set, or None.
    """

    run_id: str
    part: str
    overwrites: bool = False
    keep: str = "all"
    references: tuple[int, ...] = ()
    packed_parts: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
    provenance: list[dict[str, Any]] = field(default_factory=list)
    probe: Probe | None = None


NodePath = tuple[str, ...]  # names of the children from the root down; () is the root
Contents = dict[NodePath, Content]
