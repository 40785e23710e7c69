"""Precision modes by name; this file needs no Triton.

| precision | float32 on NVIDIA | float32 on AMD | float64 | bfloat16, float16 |
|---|---|---|---|---|
| `"highest"` | `ieee` | `ieee` | `ieee` | `ieee`: exact products, float32 sums |
| `"high"` | `tf32x3` | `bf16x3` | `ieee` | `ieee` |
| `"medium"` | `tf32` | `tf32` on gfx942, else `bf16x3` | `ieee` | `ieee` |

One bfloat16 product alone does not do for `"medium"`: its error on random data is 2.6e-3, above the promised 2e-3.
"""

from __future__ import annotations

from functools import cache

import torch

MODES = ("ieee", "tf32x3", "tf32", "bf16x3")
"""How products of float32 operands are formed; other dtypes always use `ieee`."""

FLOAT32_MODES = {
    "cuda": {"highest": "ieee", "high": "tf32x3", "medium": "tf32"},
    "gfx942": {"highest": "ieee", "high": "bf16x3", "medium": "tf32"},
    "hip": {"highest": "ieee", "high": "bf16x3", "medium": "bf16x3"},
}
"""Mode of each precision for float32, by platform."""


@cache
def platform() -> str:
    """Return the platform kernels run on: "cuda", "gfx942", or "hip" for other AMD GPUs."""
    if torch.version.hip is None or not torch.cuda.is_available():
        return "cuda"
    return "gfx942" if torch.cuda.get_device_properties(0).gcnArchName.startswith("gfx942") else "hip"


@cache
def architecture() -> str:
    """Return which launch configurations fit this GPU: "sm_80", "sm_90" or "gfx942".

    "sm_80" stays within the 99 KiB of shared memory of consumer GPUs, "sm_90" takes the 227 KiB of data-centre ones.
    """
    if torch.version.hip is not None:
        return "gfx942"
    large = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] in (9, 10)
    return "sm_90" if large else "sm_80"


def mode(precision: str, dtype: torch.dtype, on: str | None = None) -> str:
    """Return the mode in which `precision` runs for operands of `dtype` on a platform (default: this one)."""
    return FLOAT32_MODES[on or platform()][precision] if dtype == torch.float32 else "ieee"
