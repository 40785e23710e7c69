"""Exceptions and type aliases shared by every layer.

Every error a user can meet derives from `TwoPhaseError`, so one `except` clause catches them all; each class
also derives from the built-in a caller would expect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch

Output: TypeAlias = Literal["full", "trace", "diagonal", "sum"]
Precision: TypeAlias = Literal["highest", "high", "medium"]
Backend: TypeAlias = Literal["reference", "cpu", "library", "triton"]

Inputs: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor]
ParameterFilter: TypeAlias = str | Sequence[str] | Callable[[str], bool] | None


class TwoPhaseError(Exception):
    """Base class of every error raised on purpose by this package."""


class InputError(TwoPhaseError, ValueError):
    """An argument has the wrong shape, dtype, device or value."""


class ConfigError(InputError):
    """A configuration has an unknown key or an impossible value."""


class UnsupportedModelError(TwoPhaseError, ValueError):
    """A model whose kernel cannot be computed exactly; the message says why and what to change."""


class BackendError(TwoPhaseError, RuntimeError):
    """No backend can run an op on the given inputs; the message lists every reason."""


class StorageError(TwoPhaseError, OSError):
    """A file is missing, corrupt, already there, or cannot be written."""
