"""Whether Triton runs here, and how an op's `__init__` names its Triton version without importing Triton."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from twophase_fast import settings
from twophase_fast.ops._checks import ALL_FLOATS, tensors_in

_OLDEST_CAPABILITY = (8, 0)


def lazy(op: str, name: str) -> Callable[..., Any]:
    """Return a function that imports `ops/<op>/triton_kernel.py` when first called and calls its function `name`."""

    def call(*arguments: Any) -> Any:
        return getattr(import_module(f"twophase_fast.ops.{op}.triton_kernel"), name)(*arguments)

    return call


def refuses(*arguments: object, dtypes: Sequence[torch.dtype] = ALL_FLOATS) -> list[str]:
    """Return why Triton kernels do not take the tensors among an op's arguments; empty if they do.

    Args:
        arguments: The op's arguments, or some of them.
        dtypes: Element types that the kernel takes.
    """
    given = tensors_in(arguments)
    reasons = [f"dtype {dtype}" for dtype in sorted({str(t.dtype) for t in given if t.dtype not in dtypes})]
    kinds = sorted({t.device.type for t in given})
    if len(kinds) > 1:
        reasons.append(f"tensors are on {' and '.join(kinds)}; move them to one device")
    reasons += [reason for kind in kinds if (reason := _refuses_device(kind))]
    missing = _missing()
    return [*reasons, missing] if missing else reasons


@cache
def _missing() -> str | None:
    return None if find_spec("triton") is not None else "triton is not installed; pip install 'twophase_fast[triton]'"


def _refuses_device(kind: str) -> str | None:
    if kind == "cuda":
        return _refuses_gpu()
    if kind != "cpu":
        return f"tensors are on {kind}; Triton runs on NVIDIA and AMD GPUs"
    if settings.interpret():
        return None
    return "tensors are on cpu; move them to a GPU, or set TRITON_INTERPRET=1 to run the kernels interpreted (slowly)"


@cache
def _refuses_gpu() -> str | None:
    capability = torch.cuda.get_device_capability()
    if torch.version.hip is None and capability < _OLDEST_CAPABILITY:
        return f"the GPU has compute capability {capability[0]}.{capability[1]}; the kernels need 8.0 or newer"
    return None
