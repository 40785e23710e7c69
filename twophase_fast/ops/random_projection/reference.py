"""Definition of the random projection in plain torch; in float64 it is the truth for every backend."""

from __future__ import annotations

import torch

from twophase_fast.ops._ieee import ieee_float32

BLOCK_ELEMENTS = 1 << 22  # signs that exist at a time; bounds the memory, not the result
_WORD, _COUNTER = 32, 128  # signs per word, and per counter
_LOW = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


def random_projection(x: torch.Tensor, directions: int, seed: int, offset: int, precision: str) -> torch.Tensor:
    """Return x S of x [R, P]."""
    out = x.new_zeros(x.shape[0], directions)
    random_projection_(out, x, seed, offset, precision)
    return out


def random_projection_(out: torch.Tensor, x: torch.Tensor, seed: int, offset: int, precision: str) -> None:
    """Add x S to `out`."""
    step = max(1, BLOCK_ELEMENTS // max(out.shape[1], 1))
    for start in range(0, x.shape[1], step):
        block = x[:, start : start + step]
        rows = torch.arange(offset + start, offset + start + block.shape[1], device=x.device)
        with ieee_float32():
            out += block @ signs(rows, out.shape[1], seed).to(x.dtype)


def signs(rows: torch.Tensor, directions: int, seed: int) -> torch.Tensor:
    """Return the given rows of S, [rows, directions], as int64."""
    counters = torch.arange(-(-directions // _COUNTER), device=rows.device)
    rows = rows.unsqueeze(1)
    words = philox(rows & _LOW, rows >> 32 & _LOW, counters, torch.zeros_like(counters), seed)
    bits = torch.stack(words, dim=-1).unsqueeze(-1) >> torch.arange(_WORD, device=rows.device) & 1
    return 2 * bits.flatten(1)[:, :directions] - 1  # [rows, counters, words, bits]


def philox(c0: torch.Tensor, c1: torch.Tensor, c2: torch.Tensor, c3: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """Return the four words of Philox-4x32-10; words are int64 below 2³², products wrap around at 2⁶⁴."""
    for i in range(_ROUNDS):
        keys = [(seed >> 32 * half) + i * _WEYL[half] & _LOW for half in (0, 1)]
        p0, p2 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p2 >> 32 & _LOW) ^ c1 ^ keys[0], p2 & _LOW, (p0 >> 32 & _LOW) ^ c3 ^ keys[1], p0 & _LOW
    return list(torch.broadcast_tensors(c0, c1, c2, c3))
