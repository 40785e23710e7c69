"""Sizes and work of the ops: the inputs come from the rows of `OP_CASES`, so what is tested is what is timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twophase_fast.ops._cases import OP_CASES, OpCase

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class OpWorkload:
    """One op at one size.

    Attributes:
        op: Name of the row of `OP_CASES`.
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
        """The row of `OP_CASES`."""
        return next(case for case in OP_CASES if case.name == self.op)

    def __str__(self) -> str:
        return f"{self.op} " + " ".join(f"{name}={value}" for name, value in self.sizes.items() if value)


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


DEFAULT = (
    OpWorkload("gram", {"batch": 0, "n": 320, "m": 0, "p": 65536}, _gram_flops, _gram_bytes),
    OpWorkload("gram", {"batch": 0, "n": 1280, "m": 0, "p": 8192}, _gram_flops, _gram_bytes),
    OpWorkload("gram", {"batch": 0, "n": 640, "m": 320, "p": 16384}, _gram_flops, _gram_bytes),
    OpWorkload("gram_", {"batch": 0, "n": 640, "m": 0, "p": 16384}, _gram_flops, _gram_bytes),
    OpWorkload("symmetrize_", {"batch": 0, "n": 4096}, None, _mirror_bytes),
    OpWorkload("pair_moments", {"p": 8_000_000, "runs": 1, "s": 1}, None, _moment_bytes),
    OpWorkload("pair_moments", {"p": 1_000_000, "runs": 8, "s": 1}, None, _moment_bytes),
)
SMOKE = (
    OpWorkload("gram", {"batch": 0, "n": 65, "m": 0, "p": 300}, _gram_flops, _gram_bytes),
    OpWorkload("symmetrize_", {"batch": 0, "n": 97}, None, _mirror_bytes),
    OpWorkload("pair_moments", {"p": 9001, "runs": 1, "s": 1}, None, _moment_bytes),
)


def of_suite(suite: str) -> tuple[OpWorkload, ...]:
    """Rows of a suite; `large` has the default ones."""
    return SMOKE if suite == "smoke" else DEFAULT
