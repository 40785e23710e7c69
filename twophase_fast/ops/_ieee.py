"""Products and convolutions in plain torch at a precision of ours, whatever the user's session has allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

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


def ieee_convolutions() -> AbstractContextManager[None]:
    """Force torch's float32 convolutions to full precision inside the block, then restore the settings.

    On a GPU torch allows TF32 in them by default.
    """
    return _convolutions(tf32=False)


def tf32_convolutions() -> AbstractContextManager[None]:
    """Let torch's float32 convolutions on a GPU take TF32 inside the block, then restore the settings."""
    return _convolutions(tf32=True)


@contextmanager
def _convolutions(*, tf32: bool) -> Iterator[None]:
    backends = torch.backends
    owners = [getattr(parent, "conv", None) for parent in (backends.cudnn, backends.mkldnn)]
    values = ["tf32" if tf32 else "ieee", "ieee"]
    switches: list[tuple[object, str, object]] = [(o, "fp32_precision", v) for o, v in zip(owners, values, strict=True)]
    if not all(hasattr(owner, "fp32_precision") for owner in owners):
        switches = [(backends.cudnn, "allow_tf32", tf32)]
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, value in switches:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)
