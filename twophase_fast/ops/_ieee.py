"""IEEE float32 products and convolutions in plain torch, whatever precision the user's session has allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

Switch = tuple[object, str, object]
"""An object, an attribute of it, and the value wanted."""

_OWNERS = {"matmul": ("cuda", "mkldnn"), "conv": ("cudnn", "mkldnn"), "rnn": ("cudnn", "mkldnn")}


def ieee_switches(*kinds: str) -> list[Switch]:
    """Return torch's float32 switches of these kinds of operation, `"matmul"`, `"conv"` or `"rnn"`, and IEEE values."""
    backends = torch.backends
    owners = [getattr(getattr(backends, parent, None), kind, None) for kind in kinds for parent in _OWNERS[kind]]
    if all(hasattr(owner, "fp32_precision") for owner in owners):
        return [(owner, "fp32_precision", "ieee") for owner in owners]
    return [(backends.cuda.matmul if kind == "matmul" else backends.cudnn, "allow_tf32", False) for kind in kinds]


@contextmanager
def switched(switches: Sequence[Switch]) -> Iterator[None]:
    """Set attributes inside the block, then put them back."""
    saved = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, value in switches:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(switches, saved, strict=True):
            setattr(owner, name, value)


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Force torch's float32 matrix products to full precision inside the block, then restore the setting.

    Torch's older switch moves the newer ones along. Where a user has set only the newer ones it cannot be read, and
    they are set instead.
    """
    before = _older_switch()
    if before is None:
        with switched(ieee_switches("matmul")):
            yield
        return
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _older_switch() -> str | None:
    """Return torch's older switch of float32 products; None where it and the newer ones disagree."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


@contextmanager
def ieee_convolutions() -> Iterator[None]:
    """Force torch's float32 convolutions to full precision inside the block, then restore the settings.

    On a GPU torch allows TF32 in them by default.
    """
    with switched(ieee_switches("conv")):
        yield
