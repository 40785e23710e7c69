"""Sizes at which the ops are measured, and the work that takes; used by `twophase bench` and the benchmarks.

The inputs come from the rows of `OP_CASES` (the tests' own) or of `LAYER_CASES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twophase_fast.ops import _layer_cases as layers
from twophase_fast.ops._case import OpCase, Sizes
from twophase_fast.ops._cases import OP_CASES


@dataclass(frozen=True)
class OpWorkload:
    """One op at one size.

    Attributes:
        op: Name of the row.
        sizes: As that row's builder takes them.
        flops: Floating-point operations, a multiply and an add being two; None if memory-bound.
        bytes: Bytes that must be read or written at least once.
    """

    op: str
    sizes: Sizes
    flops: Callable[[Sizes], float] | None
    bytes: Callable[[Sizes], float]

    @property
    def case(self) -> OpCase:
        """The row of this op: how to call it and make its inputs."""
        return next(case for case in (*layers.LAYER_CASES, *OP_CASES) if case.name == self.op)

    def __str__(self) -> str:
        return f"{self.op} " + " ".join(f"{name}={value}" for name, value in self.sizes.items() if value)

    @property
    def label(self) -> str:
        """Such as `gram-n640-p4096`."""
        return "-".join([self.op, *(f"{name}{value}" for name, value in self.sizes.items() if value)])


def _gram_flops(s: Sizes) -> float:
    """2·N·M·P; for a symmetric product only the upper triangle: N(N+1)·P."""
    batch = max(1, s["batch"])
    return batch * s["p"] * (2 * s["n"] * s["m"] if s["m"] else s["n"] * (s["n"] + 1))


def _gram_bytes(s: Sizes) -> float:
    columns = s["m"] or s["n"]
    return 4 * max(1, s["batch"]) * (s["p"] * (s["n"] + s["m"]) + s["n"] * columns)


def _mirror_bytes(s: Sizes) -> float:
    """The upper triangle is read, the lower written."""
    return 4 * max(1, s["batch"]) * s["n"] ** 2


def _moment_bytes(s: Sizes) -> float:
    """Every run has 3p + 1 elements, and each is read once."""
    return 4 * (s["runs"] + s["s"]) * (3 * s["p"] + 1)


def _gram(n: int, p: int, m: int = 0) -> OpWorkload:
    return OpWorkload("gram", {"batch": 0, "n": n, "m": m, "p": p}, _gram_flops, _gram_bytes)


def _moments(p: int, runs: int) -> OpWorkload:
    return OpWorkload("pair_moments", {"p": p, "runs": runs, "s": 1}, None, _moment_bytes)


def _factored(**sizes: int) -> OpWorkload:
    return OpWorkload("factored_gram", sizes, layers.factored_flops, layers.factored_bytes)


def _linear(**sizes: int) -> OpWorkload:
    return OpWorkload("per_sample_grad", sizes, layers.linear_flops, layers.linear_bytes)


def _conv(**sizes: int) -> OpWorkload:
    return OpWorkload("per_sample_conv_grad", sizes, layers.conv_flops, layers.conv_bytes)


def _pull_back(kernel: int = 3, stride: int = 1, padding: int = 1, **sizes: int) -> OpWorkload:
    sizes |= {"kernel": kernel, "stride": stride, "padding": padding}
    return OpWorkload("conv_input_grad", sizes, layers.pull_back_flops, layers.pull_back_bytes)


def _linear_input(scale: int = 0, add: int = 0, **sizes: int) -> OpWorkload:
    sizes |= {"add": add, "scale": scale}
    return OpWorkload("linear_input_grad_", sizes, layers.linear_flops, layers.linear_input_bytes)


def _norm(op: str, **sizes: int) -> OpWorkload:
    return OpWorkload(op, {**sizes, "weight": 1}, None, layers.norm_bytes)


def _product(**sizes: int) -> OpWorkload:
    return OpWorkload("batched_product_", sizes, layers.product_flops, layers.product_bytes)


def _embedding(**sizes: int) -> OpWorkload:
    return OpWorkload("embedding_gram", sizes, None, layers.embedding_bytes)


DEFAULT = (
    _gram(n=320, p=65536),
    _gram(n=640, p=16384),
    _gram(n=1280, p=8192),
    _gram(n=2560, p=4096),
    _gram(n=640, m=320, p=16384),
    OpWorkload("gram_", {"batch": 0, "n": 640, "m": 0, "p": 16384}, _gram_flops, _gram_bytes),
    OpWorkload("symmetrize_", {"batch": 0, "n": 4096}, None, _mirror_bytes),
    *(_factored(n=64, c=c, t=1, d=1024, p=1024) for c in (1, 10)),  # a hidden layer of the MLP
    *(_factored(n=64, c=c, t=t, d=576, p=64) for c in (1, 10) for t in (4, 16, 64)),  # 3x3 convolutions, 64 channels
    _factored(n=8, c=10, t=4, d=4608, p=512),  # the last stage of VGG-16
    _factored(n=8, c=10, t=64, d=2304, p=256),  # its third
    _factored(n=256, c=10, t=1, d=1024, p=1024),
    _linear(n=16, c=10, t=65, d=192, p=576),  # qkv of the ViT
    _conv(n=16, c=10, d=16, p=16, side=32),  # the first stage of ResNet-20
    _conv(n=16, c=10, d=64, p=64, side=8),  # its last
    _conv(n=8, c=10, d=256, p=256, side=8),  # the third stage of VGG-16
    _pull_back(n=320, d=16, p=16, side=32),  # the three stages of ResNet-20, 32 samples with 10 cotangents
    _pull_back(n=320, d=32, p=32, side=16),
    _pull_back(n=320, d=64, p=64, side=8),
    _pull_back(n=320, d=16, p=32, side=32, stride=2),  # its first step between stages, and a shortcut
    _pull_back(n=320, d=16, p=32, side=32, stride=2, kernel=1, padding=0),
    _pull_back(n=80, d=64, p=64, side=32),  # the stages of VGG-16
    _pull_back(n=80, d=128, p=128, side=16),
    _pull_back(n=80, d=256, p=256, side=8),
    _pull_back(n=80, d=512, p=512, side=4),
    _pull_back(n=80, d=512, p=512, side=2),
    _pull_back(n=160, d=32, p=32, side=30, padding=0),  # without padding
    _linear_input(n=256, c=10, t=1, p=1024, d=1024, scale=1),  # the hidden layers of the MLP, with their ReLU
    _linear_input(n=256, c=10, t=1, p=10, d=1024, scale=1),  # its last layer
    _linear_input(n=8, c=10, t=65, p=192, d=192),  # the ViT
    _linear_input(n=8, c=10, t=65, p=576, d=192, add=1),
    _linear_input(n=8, c=10, t=65, p=768, d=192),
    _linear_input(n=8, c=10, t=65, p=192, d=768, scale=1),
    _norm("batch_norm_grad", n=32, c=10, k=16, t=1024, relu=1),  # the first and last stage of ResNet-20, with ReLU
    _norm("batch_norm_grad", n=32, c=10, k=64, t=64, relu=1),
    _norm("layer_norm_grad", n=32, c=10, t=65, d=192),  # the ViT
    _product(n=32, c=10, heads=3, rows=65, terms=65, columns=64, shared=1),  # its attention
    _product(n=32, c=10, heads=3, rows=65, terms=65, columns=64, shared=-1),
    _embedding(n=16, c=10, t=64, v=1000, p=128),
    _moments(p=2_000_000, runs=1),
    _moments(p=21_333_333, runs=1),  # 64 M elements a run
    _moments(p=1_333_333, runs=16),  # 4 M elements a run
)
"""The rows of `make bench`; the first of an op is where `twophase bench` starts from."""

SMOKE = (
    _gram(n=65, p=300),
    OpWorkload("symmetrize_", {"batch": 0, "n": 97}, None, _mirror_bytes),
    _factored(n=3, c=2, t=5, d=7, p=9),
    _linear(n=3, c=2, t=5, d=7, p=9),
    _conv(n=3, c=2, d=5, p=7, side=6),
    _pull_back(n=3, d=5, p=7, side=6),
    _pull_back(n=3, d=5, p=7, side=6, stride=2, padding=0),
    _linear_input(n=3, c=2, t=5, p=9, d=7, scale=1, add=1),
    _norm("batch_norm_grad", n=2, c=3, k=5, t=8, relu=1),
    _norm("layer_norm_grad", n=2, c=3, t=5, d=17),
    _product(n=2, c=3, heads=2, rows=5, terms=6, columns=7, shared=1),
    _embedding(n=3, c=2, t=5, v=4, p=9),
    _moments(p=9001, runs=1),
)
"""The same ops at sizes that take no time."""


def of_suite(suite: str) -> tuple[OpWorkload, ...]:
    """Rows of a suite; `large` has the default ones."""
    return SMOKE if suite == "smoke" else DEFAULT
