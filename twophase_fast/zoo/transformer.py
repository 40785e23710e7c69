"""Pre-LayerNorm transformers: a vision transformer and a GPT with tied embeddings."""

from __future__ import annotations

import math

import torch
from torch import nn

from twophase_fast._types import InputError
from twophase_fast.zoo._seeding import seeded


class Attention(nn.Module):
    """Multi-head self-attention written out: one qkv projection, softmax(q kᵀ / √d_head) v, a projection."""

    def __init__(self, d: int, heads: int, causal: bool):
        super().__init__()
        if d % heads:
            raise InputError(f"d={d} is not a multiple of heads={heads}; every head takes d/heads of the width")
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.heads, self.causal = heads, causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, T, d] to [N, T, d]."""
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # each [N, h, T, d/h]
        scores = q @ k.transpose(-1, -2) / math.sqrt(d // self.heads)  # [N, h, T, T]
        if self.causal:
            future = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, d))


class Layer(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)) with one hidden GELU layer of 4d units."""

    def __init__(self, d: int, heads: int, causal: bool):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = Attention(d, heads, causal)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, T, d] to [N, T, d]."""
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class ViT(nn.Module):
    """Vision transformer; see `vit`."""

    def __init__(self, in_channels: int, outputs: int, image_size: int, patch: int, d: int, depth: int, heads: int):
        super().__init__()
        self.embed = nn.Conv2d(in_channels, d, patch, stride=patch)
        tokens = (image_size // patch) ** 2 + 1
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, d))
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, d))
        self.layers = nn.Sequential(*(Layer(d, heads, causal=False) for _ in range(depth)))
        self.norm, self.readout = nn.LayerNorm(d), nn.Linear(d, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, in_channels, image_size, image_size] to [N, outputs]."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.positions
        return self.readout(self.norm(self.layers(x))[:, 0])


class GPT(nn.Module):
    """Decoder-only language model; see `gpt`."""

    def __init__(self, vocabulary: int, context: int, d: int, depth: int, heads: int, tied: bool):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, d)
        self.positions = nn.Embedding(context, d)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.layers = nn.Sequential(*(Layer(d, heads, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(d)
        self.readout = nn.Linear(d, vocabulary, bias=False)
        if tied:
            self.readout.weight = self.tokens.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map integer tokens [N, T], T <= context, to the logits at the last position [N, vocabulary]."""
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        return self.readout(self.norm(self.layers(x))[:, -1])


@seeded
def vit(
    in_channels: int = 3,
    outputs: int = 10,
    image_size: int = 32,
    patch: int = 4,
    d: int = 192,
    depth: int = 6,
    heads: int = 3,
    *,
    seed: int = 0,
) -> nn.Module:
    """Vision transformer: class token, learned positions, pre-LayerNorm, plain qkv attention.

    Maps [N, in_channels, image_size, image_size] to [N, outputs]; (image_size/patch)² + 1 tokens, 65 with the
    defaults. `d` must be a multiple of `heads`.
    """
    return ViT(in_channels, outputs, image_size, patch, d, depth, heads)


@seeded
def gpt(
    vocabulary: int = 1000,
    context: int = 64,
    d: int = 128,
    depth: int = 4,
    heads: int = 4,
    tied: bool = True,
    *,
    seed: int = 0,
) -> nn.Module:
    """GPT: learned positions, causal pre-LayerNorm layers, readout tied to the token embedding.

    Maps integer tokens [N, T], T <= `context`, to the logits at the last position, [N, vocabulary]. `d` must
    be a multiple of `heads`; `tied=False` gives the readout a weight of its own.
    """
    return GPT(vocabulary, context, d, depth, heads, tied)
