"""IEEE float32 products and convolutions in plain torch, whatever precision the user's session has allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Force torch's float32 matrix products to full precision inside the block, then restore the setting."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def ieee_convolutions() -> Iterator[None]:
    """Force torch's float32 convolutions to full precision inside the block, then restore the settings.

    On a GPU torch allows TF32 in them by default.
    """
    backends = torch.backends
    owners = [getattr(parent, "conv", None) for parent in (backends.cudnn, backends.mkldnn)]
    switches: list[tuple[object, str, object]] = [(owner, "fp32_precision", "ieee") for owner in owners]
    if not all(hasattr(owner, "fp32_precision") for owner in owners):
        switches = [(backends.cudnn, "allow_tf32", False)]
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, value in switches:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)
