"""The benchmark models in JAX, from the layer list that `benchmarks.jax_export` makes of a torch module.

Images are `[N, H, W, C]` and convolutions HWIO, the layout that XLA's CPU backend prefers. Layers are functions
(parameters, constants, x) -> x; parameters and constants are dicts of arrays under their torch names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

Arrays = dict[str, jax.Array]
Layer = Callable[[Arrays, Arrays, jax.Array], jax.Array]


def build(layers: list[list[Any]]) -> Layer:
    """Return the function of a list of layers, each `[kind, *arguments]`."""
    functions = [partial(KINDS[kind], *arguments) for kind, *arguments in layers]

    def apply(parameters: Arrays, constants: Arrays, x: jax.Array) -> jax.Array:
        for function in functions:
            x = function(parameters, constants, x)
        return x

    return apply


def _linear(name: str, p: Arrays, _: Arrays, x: jax.Array) -> jax.Array:
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def _conv(name: str, stride: int, padding: int, p: Arrays, _: Arrays, x: jax.Array) -> jax.Array:
    y = jax.lax.conv_general_dilated(
        x,
        p[f"{name}.weight"],
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    bias = p.get(f"{name}.bias")
    return y if bias is None else y + bias


def _batch_norm(name: str, p: Arrays, c: Arrays, x: jax.Array) -> jax.Array:
    """Evaluation mode: (x − mean) / std, both constants, then scale and shift."""
    return (x - c[f"{name}.mean"]) * c[f"{name}.inverse_std"] * p[f"{name}.weight"] + p[f"{name}.bias"]


def _layer_norm(name: str, eps: float, p: Arrays, _: Arrays, x: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + eps)
    return centred * scale * p[f"{name}.weight"] + p[f"{name}.bias"]


def _relu(_: Arrays, __: Arrays, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x)


def _max_pool(size: int, _: Arrays, __: Arrays, x: jax.Array) -> jax.Array:
    n, h, w, channels = x.shape
    return x.reshape(n, h // size, size, w // size, size, channels).max((2, 4))


def _flatten(_: Arrays, __: Arrays, x: jax.Array) -> jax.Array:
    """Flatten in torch's order, channels first."""
    if x.ndim == 4:
        x = x.transpose(0, 3, 1, 2)
    return x.reshape(len(x), -1)


def _global_mean(_: Arrays, __: Arrays, x: jax.Array) -> jax.Array:
    return x.mean((1, 2))


def _block(inner: list[list[Any]], stride: int, new_channels: int, p: Arrays, c: Arrays, x: jax.Array) -> jax.Array:
    """A residual block; the shortcut subsamples and pads new channels with zeros."""
    y = build(inner)(p, c, x)
    if stride != 1 or new_channels:
        before = new_channels // 2
        x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (before, new_channels - before)))
    return jax.nn.relu(y + x)


def _vit(layers: list[str], heads: int, eps: float, p: Arrays, c: Arrays, x: jax.Array) -> jax.Array:
    """Class token and positions onto the patches, pre-LayerNorm layers, the class token's output."""
    n, d = len(x), x.shape[-1]
    x = jnp.concatenate([jnp.broadcast_to(p["cls"], (n, 1, d)), x.reshape(n, -1, d)], 1) + p["positions"]
    for name in layers:
        x = x + _attention(name, heads, p, c, _layer_norm(f"{name}.ln1", eps, p, c, x))
        y = _linear(f"{name}.mlp.0", p, c, _layer_norm(f"{name}.ln2", eps, p, c, x))
        x = x + _linear(f"{name}.mlp.2", p, c, jax.nn.gelu(y, approximate=False))
    return _layer_norm("norm", eps, p, c, x)[:, 0]


def _attention(name: str, heads: int, p: Arrays, c: Arrays, x: jax.Array) -> jax.Array:
    n, t, d = x.shape
    qkv = _linear(f"{name}.attention.qkv", p, c, x).reshape(n, t, 3, heads, d // heads)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each [N, h, T, d/h]
    weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) * (d // heads) ** -0.5)
    return _linear(f"{name}.attention.proj", p, c, (weights @ v).swapaxes(1, 2).reshape(n, t, d))


KINDS: dict[str, Callable[..., jax.Array]] = {
    "linear": _linear,
    "conv": _conv,
    "batch_norm": _batch_norm,
    "relu": _relu,
    "max_pool": _max_pool,
    "flatten": _flatten,
    "global_mean": _global_mean,
    "block": _block,
    "vit": _vit,
}
"""Kind -> layer; arguments from the list come first."""
