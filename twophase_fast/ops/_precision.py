"""Which precision a call really runs in, for those who say so to the user."""

from __future__ import annotations

import torch

from twophase_fast._types import Precision
from twophase_fast.ops import _cpu, _dispatch


def precision_that_runs(wanted: Precision, like: torch.Tensor) -> Precision:
    """Return the precision in which `gram_` runs where `wanted` is asked for.

    The reference has `"highest"` alone, Triton all of them for float32. The C++ kernels have `"high"` beside
    `"highest"`, for float32 on a processor with AMX; there `"medium"` runs as `"high"`.

    Args:
        wanted: What the caller asked for.
        like: A tensor of the operands' dtype and device; its values are not read.

    Returns:
        `wanted`, or the next better one that is there.

    Raises:
        BackendError: `TWOPHASE_BACKEND` names a backend that does not take such tensors.
    """
    x = like.new_empty(1, 1)
    backend = _dispatch.choose("gram_", None, x, x, None, wanted)
    if like.dtype != torch.float32 or wanted == "highest":
        return "highest"
    if backend == "cpu":
        return "high" if _cpu.splits(wanted, x) else "highest"
    return wanted if backend == "triton" else "highest"
