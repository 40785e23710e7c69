"""Random signs that are a function of a key alone: no state, no torch-wide generator, the same on every device."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from functools import cache

import torch

_WORD = 64


def random_signs(key: tuple[Hashable, ...], rows: int, columns: int, *, like: torch.Tensor) -> torch.Tensor:
    """Return independent Rademacher variables [rows, columns]: +1 or -1 with probability 1/2 each.

    Args:
        key: Numbers and strings; the same key gives the same signs. Fewer rows are a prefix of more.
        rows: Number of rows.
        columns: Number of columns.
        like: A Tensor of the wanted dtype and device.
    """
    count = rows * columns
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    words = torch.empty(-(-count // _WORD), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    octets = words.view(torch.uint8).to(like.device, torch.int32)
    return _octet_signs(like.dtype, like.device).index_select(0, octets).flatten()[:count].view(rows, columns)


@cache
def _octet_signs(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return the eight signs of every byte, [256, 8]."""
    bits = (torch.arange(256).unsqueeze(1) >> torch.arange(8)) & 1
    return (2 * bits - 1).to(device, dtype)
