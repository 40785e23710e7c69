"""Precision modes by name; this file needs no Triton.

| precision | float32 on NVIDIA | float32 on AMD | float64 | bfloat16, float16 |
|---|---|---|---|---|
| `"highest"` | `ieee` | `ieee` | `ieee` | `ieee`: exact products, float32 sums |
| `"high"` | `tf32x3` | `bf16x3` | `ieee` | `ieee` |
| `"medium"` | `tf32` | `tf32` on gfx942, else `bf16` | `ieee` | `ieee` |
"""

from __future__ import annotations

from functools import cache

import torch

MODES = ("ieee", "tf32x3", "tf32", "bf16x3", "bf16")
"""How products of float32 operands are formed; other dtypes always use `ieee`."""

FLOAT32_MODES = {
    "cuda": {"highest": "ieee", "high": "tf32x3", "medium": "tf32"},
    "gfx942": {"highest": "ieee", "high": "bf16x3", "medium": "tf32"},
    "hip": {"highest": "ieee", "high": "bf16x3", "medium": "bf16"},
}
"""Mode of each precision for float32, by platform."""


@cache
def platform() -> str:
    """Return the platform kernels run on: "cuda", "gfx942", or "hip" for other AMD GPUs."""
    if torch.version.hip is None or not torch.cuda.is_available():
        return "cuda"
    return "gfx942" if torch.cuda.get_device_properties(0).gcnArchName.startswith("gfx942") else "hip"


def mode(precision: str, dtype: torch.dtype, on: str | None = None) -> str:
    """Return the mode in which `precision` runs for operands of `dtype` on a platform (default: this one)."""
    return FLOAT32_MODES[on or platform()][precision] if dtype == torch.float32 else "ieee"
