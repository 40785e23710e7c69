"""What `make gpu-check` times of the pull-back: normalisations and ReLU beside a copy's bandwidth, and products.

The peer is plain torch: the definition of the op, a pass over memory for every step of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from benchmarks.gpu_rows import GpuRow, Run, against_reference
from benchmarks.gpu_smoke import backend_of
from twophase_fast import ops
from twophase_fast.ops import _workloads

_BYTES = 4  # of float32
_EVERY = 3  # every third size of the products and convolutions: the libraries' own rates are known


def rows(small: bool = False) -> Iterator[GpuRow]:
    """Yield the rows; `small` ones run in seconds under the interpreter."""
    shapes = [(2, 3, 4, 9)] if small else [(500, 10, 16, 1024), (500, 10, 64, 64), (8, 8, 64, 12544), (8, 8, 512, 49)]
    yield from (_batch_norm(*shape) for shape in shapes)
    yield _relu(*((2, 3, 50) if small else (500, 10, 16384)))
    shapes = [(2, 3, 5, 9)] if small else [(64, 10, 65, 192), (8, 10, 1024, 768), (8, 4, 512, 4096)]
    yield from (_layer_norm(*shape) for shape in shapes)
    works = _workloads.of_suite("smoke" if small else "default")
    served = [work for work in works if backend_of(work.op) == "library"]
    yield from (against_reference(work, "library") for work in served[::_EVERY])


def _row(name: str, shapes: Sequence[Sequence[int]], moved: float, call: Callable[..., Any]) -> GpuRow:
    """Return the row of an op whose operands are standard normal numbers of these shapes, the last positive."""

    def make(device: torch.device) -> tuple[Run, Run, Run]:
        """Return the op's call, the peer's and the truth's on inputs made there."""
        generator = torch.Generator(device).manual_seed(0)
        single = [torch.randn(*shape, device=device, generator=generator) for shape in shapes]
        single[-1].abs_().add_(0.5)
        return (
            lambda: call(*single, backend="triton"),
            lambda: call(*single, backend="reference"),
            lambda: call(*(operand.double() for operand in single), backend="reference"),
        )

    return GpuRow(name, make, "plain torch", bytes=moved)


def _batch_norm(samples: int, cotangents: int, channels: int, positions: int) -> GpuRow:
    """Cotangents are read and written once, inputs and results of the ReLU read once."""
    n, c, k, t = samples, cotangents, channels, positions
    shapes = [(n, c, k, t), (n, k, t), (n, k, t), (k,), (k,), (k,)]

    def call(g: torch.Tensor, x: torch.Tensor, relu: torch.Tensor, *channel: torch.Tensor, backend: Any) -> Any:
        weight, mean, rstd = channel
        return ops.batch_norm_grad(g, x, mean, rstd, weight, relu=relu, backend=backend)

    moved = _BYTES * 2.0 * n * k * t * (c + 1)
    return _row(f"batch_norm_grad n={n} c={c} k={k} t={t}, ReLU", shapes, moved, call)


def _relu(samples: int, cotangents: int, elements: int) -> GpuRow:
    n, c, e = samples, cotangents, elements

    def call(g: torch.Tensor, relu: torch.Tensor, _: torch.Tensor, backend: Any) -> torch.Tensor:
        return ops.relu_grad_(g, relu, backend=backend)

    return _row(f"relu_grad_ n={n} c={c} e={e}", [(n, c, e), (n, e), (1,)], _BYTES * float(n * e * (2 * c + 1)), call)


def _layer_norm(samples: int, cotangents: int, positions: int, features: int) -> GpuRow:
    b, k, t, d = samples, cotangents, positions, features

    def call(g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *rows: torch.Tensor, backend: Any) -> Any:
        return ops.layer_norm_grad(g, x, *rows, weight, backend=backend)

    shapes = [(b, k, t, d), (b, t, d), (d,), (b, t), (b, t)]
    return _row(f"layer_norm_grad b={b} k={k} t={t} d={d}", shapes, _BYTES * float(b * t * d * (2 * k + 1)), call)
