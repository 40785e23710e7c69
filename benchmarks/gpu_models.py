"""The last rows of `make gpu-check`: whole kernels, beside torch.func on the same GPU and beside published figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

import twophase_fast as tp
from benchmarks import gpu_kernels
from benchmarks.accuracy import relative_error
from benchmarks.gpu_items import Item, Note
from benchmarks.gpu_measure import finish
from benchmarks.gpu_networks import resnet18
from benchmarks.gpu_rows import let_tf32
from benchmarks.peers import torch_func
from benchmarks.truth import naive_kernel
from benchmarks.workloads import randomise
from twophase_fast import zoo

BOUNDS = {"highest": 1e-4, "high": 2e-5, "medium": 4e-3}
"""Largest error of a kernel against float64: of the contractions and of the model's own float32 pass."""
PRECISIONS = ("high", "highest", "medium")
PAPER_PAIRS = 60_000 * 50_000
ROUNDS = 5

Made = tuple[nn.Module, torch.Tensor, torch.Tensor | None]


@dataclass(frozen=True)
class ModelRow:
    """One kernel.

    Attributes:
        name: Model, samples and output in words.
        make: Makes the model and the samples of one or two sides on the CPU.
        output: `full` or `trace`.
        target: Seconds to stay under, plan warm; None: only compared.
        chunk: Samples at a time of torch.func, or None for all; 0: torch.func is not tried.
        checked: Samples whose entries are compared with float64.
        extrapolates: Whether the time of this block is extrapolated to `PAPER_PAIRS` pairs.
    """

    name: str
    make: Callable[[], Made]
    output: str = "full"
    target: float | None = None
    chunk: int | None = None
    checked: int = 3
    extrapolates: bool = False


def rows(small: bool = False) -> Iterator[ModelRow]:
    """Yield the rows, the most telling ones first; `small` ones run in seconds on a CPU."""
    n = 3 if small else 500
    width = 4 if small else 16
    yield ModelRow(f"ResNet-20 N={n} trace", _model(lambda: zoo.resnet20(width=width), n, 3, 32, 32), "trace", 0.150, 0)
    n, inner = (2, 8) if small else (16, 2048)
    yield ModelRow(
        f"FCN 3072-{inner}x3-8 {n}x{n} cross full",
        _model(lambda: zoo.mlp(inputs=3072, widths=(inner,) * 3, outputs=8), n, 3072, sides=2),
        target=0.6e-3,
    )
    n, side, shrink = (2, 32, 0.05) if small else (8, 224, 1.0)
    yield ModelRow(
        f"ResNet-18 {side}x{side} N={n} O=8 full", _model(lambda: resnet18(8, width=shrink), n, 3, side, side),
        target=0.012, checked=2,
    )  # fmt: skip
    n = 3 if small else 8
    yield ModelRow(f"VGG-16 N={n} full", _model(lambda: zoo.vgg16(width=shrink), n, 3, 32, 32), chunk=n)
    n = 3 if small else 128
    yield ModelRow(f"MLP 784-{inner // 2}x3-10 N={n} full", _model(lambda: zoo.mlp(widths=(inner // 2,) * 3), n, 784))
    n = 3 if small else 128
    yield ModelRow(f"ResNet-20 N={n} full", _model(lambda: zoo.resnet20(width=width), n, 3, 32, 32), chunk=32)
    n = 3 if small else 512
    yield ModelRow(
        f"ResNet-18 32x32 scalar head {n}x{n} cross",
        _model(lambda: resnet18(1, width=shrink), n, 3, 32, 32, sides=2),
        "trace", chunk=0, extrapolates=True,
    )  # fmt: skip


def _model(factory: Callable[[], nn.Module], samples: int, *shape: int, sides: int = 1) -> Callable[[], Made]:
    """Return what makes a model in evaluation mode and standard normal samples; the same ones every time."""

    def make() -> Made:
        """Return the model and the samples of both sides."""
        generator = torch.Generator().manual_seed(1)
        model = factory().eval()
        randomise(model, generator)
        x = torch.randn(sides * samples, *shape, generator=generator)
        return model, x[:samples], x[samples:] if sides == 2 else None

    return make


def items(device: torch.device, small: bool = False) -> Iterator[Item]:
    """Yield the calibration, then one item per precision and row, the peer with the first precision."""
    yield Item("calibrate", lambda note: _calibrated(device, small))
    for k, precision in enumerate(PRECISIONS):
        yield from (_item(row, precision, device, peer=k == 0 and row.chunk != 0) for row in rows(small))


def _item(row: ModelRow, precision: str, device: torch.device, *, peer: bool) -> Item:
    def run(note: Note) -> dict[str, Any]:
        """Measure the row."""
        return measure(row, precision, device, note, peer=peer)

    def warm() -> None:
        """Compile what the row needs."""
        model, x, y = _on(device, row.make())
        tp.entk(model, x, y, output=row.output, precision=precision)

    return Item(f"{row.name}, {precision}", run, warm)


def _calibrated(device: torch.device, small: bool) -> dict[str, Any]:
    """Measure the ops' rates, from which the planner chooses methods."""
    started = time.perf_counter()
    rates = None if small else tp.calibrate(device, refresh=True)
    return {"status": "timed", "seconds": time.perf_counter() - started, "rates": str(rates)}


def measure(row: ModelRow, precision: str, device: torch.device, note: Note, *, peer: bool) -> dict[str, Any]:
    """Check a kernel against float64, then time it; `note` is told every figure as it comes."""
    model, x, y = _on(device, row.make())
    kernel, info = tp.entk(model, x, y, output=row.output, precision=precision, return_info=True)
    error = _checked(row, model, x, y, kernel)
    found = {"status": "wrong", "error": error, "allowed": BOUNDS[precision], "precision_that_ran": info.precision}
    note(found)
    if not error <= BOUNDS[precision]:
        return found
    whole = _wall(lambda: tp.entk(model, x, y, output=row.output, precision=precision), device)
    found |= {"status": "timed", "whole_call_seconds": whole}
    note(found)
    found |= gpu_kernels.prepared(model, x, y, row.output, precision, device, note)
    best = min(found.get("graph_seconds", found["warm_seconds"]), found["warm_seconds"])
    if row.target is not None:
        found |= {"target_seconds": row.target, "met": best < row.target}
    if row.extrapolates:
        found["extrapolated_60000x50000_minutes"] = PAPER_PAIRS / (len(x) * len(y)) * best / 60
    note(found)
    return found | _peer(row, model, x, y, best, kernel, device) if peer else found


def _on(device: torch.device, made: Made) -> Made:
    model, x, y = made
    return model.to(device), x.to(device), None if y is None else y.to(device)


def _checked(row: ModelRow, model: nn.Module, x: torch.Tensor, y: torch.Tensor | None, kernel: torch.Tensor) -> float:
    """Return the error of the kernel of a few samples against float64."""
    k = min(row.checked, len(x))
    both = x[:k] if y is None else torch.cat([x[:k], y[:k]])
    truth = naive_kernel(model, both, row.output)
    return relative_error(kernel[:k, :k].double(), truth if y is None else truth[:k, k:])


def _peer(
    row: ModelRow,
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor | None,
    own: float,
    kernel: torch.Tensor,
    device: torch.device,
) -> dict[str, Any]:
    """Return what torch.func takes for the same kernel (for a cross kernel: of both sides together)."""
    let_tf32(False)  # as in precision "highest"; by default torch takes it for convolutions
    both = x if y is None else torch.cat([x, y])
    try:
        theirs = torch_func(model, both, row.output, row.chunk)
        part = theirs if y is None else theirs[: len(x), len(x) :]
        error = relative_error(part.double(), kernel.double())
        seconds = _wall(lambda: torch_func(model, both, row.output, row.chunk), device)
    except RuntimeError as refusal:
        return {"peer": "torch.func", "peer_error": str(refusal).splitlines()[0]}
    return {"peer": "torch.func", "peer_differs": error, "peer_seconds": seconds, "times_faster": seconds / own}


def _wall(run: Callable[[], object], device: torch.device) -> float:
    """Return the median seconds of a few calls, host and device together."""
    times = []
    for _ in range(ROUNDS):
        finish(device)
        started = time.perf_counter()
        run()
        finish(device)
        times.append(time.perf_counter() - started)
        if sum(times) > 3:
            break
    return median(times)
