"""How fast this machine runs the ops, measured once and cached.

A table per op: throughput in FLOP/s at a few sizes, interpolated between them on logarithmic axes. The planner takes
the cheapest method and predicts seconds with it. The cache lies in `settings.cache_dir()`, one file per processor,
number of threads and version; `calibrate(refresh=True)` measures again.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from twophase_fast import ops, settings
from twophase_fast._pages import room
from twophase_fast._types import StorageError

Table = tuple[tuple[float, float], ...]
"""Pairs (size, FLOP/s), by rising size."""

_FORMAT = 2
_REPEATS = 3
_LEAST_SECONDS = 0.05  # spent on one size


@dataclass(frozen=True)
class Rates:
    """Throughputs of the ops in float32, in FLOP/s (a multiply-add is two).

    Attributes:
        gram: Gram products, by number of rows; FLOPs of the upper triangle.
        build: `per_sample_grad`, by positions T.
        conv_build: `per_sample_conv_grad`, by output positions T.
        factored_one: `factored_gram` with one output, by T.
        factored_many: The same with ten.
        copy: Bytes per second of filling memory for the first time, at any size.
    """

    gram: Table
    build: Table
    conv_build: Table
    factored_one: Table
    factored_many: Table
    copy: Table

    def at(self, op: str, size: float) -> float:
        """Return the throughput of an op at a size."""
        table: Table = getattr(self, op)
        sizes = [s for s, _ in table]
        if size <= sizes[0] or size >= sizes[-1]:
            return table[0][1] if size <= sizes[0] else table[-1][1]
        k = bisect_right(sizes, size)
        (s0, r0), (s1, r1) = table[k - 1], table[k]
        share = math.log(size / s0) / math.log(s1 / s0)
        return math.exp((1 - share) * math.log(r0) + share * math.log(r1))

    def factored(self, positions: int, classes: int) -> float:
        """Return the throughput of `factored_gram` at T positions, between its rates for one and for ten outputs."""
        share = min(math.log(max(classes, 1)) / math.log(10), 1.0)
        one, many = self.at("factored_one", positions), self.at("factored_many", positions)
        return math.exp((1 - share) * math.log(one) + share * math.log(many))


DEFAULT = Rates(
    gram=((8, 4e9), (32, 2e10), (128, 7e10), (512, 1.3e11), (2048, 1.5e11)),
    build=((1, 4e9), (4, 1.5e10), (16, 5e10), (64, 9e10), (256, 1.1e11)),
    conv_build=((4, 2e10), (16, 5e10), (64, 9e10), (256, 9e10), (1024, 8e10)),
    factored_one=((1, 2e10), (4, 5e10), (16, 8e10), (64, 1e11)),
    factored_many=((1, 8e10), (4, 9e10), (16, 1e11), (64, 1e11)),
    copy=((1, 4e9),),
)
"""What two Zen 4 cores reach; stands in until this machine is measured."""


@lru_cache(maxsize=8)
def _cached(path: Path) -> Rates:
    return _read(path) if path.exists() else DEFAULT


def known_rates(device: torch.device) -> Rates:
    """Return the cached rates of a device, or `DEFAULT` where it was never measured."""
    return _cached(_path(device))


def calibrate(device: torch.device | str = "cpu", *, refresh: bool = False) -> Rates:
    """Return a device's rates; measure them (about three seconds) and cache them where that was not done.

    Args:
        device: Device the ops run on.
        refresh: Measure again and replace the cached rates.

    Raises:
        StorageError: The cached file cannot be read or written.
    """
    device = torch.device(device)
    path = _path(device)
    if refresh or not path.exists():
        _write(path, device, measure(device))
        _cached.cache_clear()
    return known_rates(device)


def measure(device: torch.device) -> Rates:
    """Measure every table."""
    cases = _Cases(device)
    return Rates(
        gram=cases.table((8, 32, 128, 512, 2048), cases.gram),
        build=cases.table((1, 4, 16, 64, 256), cases.build),
        conv_build=cases.table((4, 16, 64, 256, 1024), cases.conv_build),
        factored_one=cases.table((1, 4, 16, 64), lambda t: cases.factored(t, 1)),
        factored_many=cases.table((1, 4, 16, 64), lambda t: cases.factored(t, 10)),
        copy=cases.table((1,), cases.copy),
    )


Case = tuple[Callable[[], object], float]


class _Cases:
    """One call of every op at a size, and its FLOPs (bytes for a copy)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def table(self, sizes: Sequence[int], case: Callable[[int], Case]) -> Table:
        """Return the throughput at every size."""
        return tuple((float(size), self._rate(*case(size))) for size in sizes)

    def gram(self, rows: int) -> Case:
        """`gram_` on so many rows."""
        width = min(2**15, 2**30 // rows**2) if rows > 64 else 2**15
        x, out = self._random(rows, width), torch.zeros(rows, rows, device=self.device)
        return lambda: ops.gram_(out, x), float(rows) * (rows + 1) * width

    def build(self, positions: int) -> Case:
        """`per_sample_grad` over so many positions."""
        n, c, size = max(2, 256 // positions), 10, 128
        a, g = self._random(n, positions, size), self._random(n, c, positions, size)
        out = torch.empty(n, c, size, size, device=self.device)
        return lambda: ops.per_sample_grad(a, g, out=out), 2.0 * n * c * positions * size**2

    def conv_build(self, positions: int) -> Case:
        """`per_sample_conv_grad` over so many output positions, with the channels usual there."""
        side = math.isqrt(positions)
        channels = {2: 512, 4: 256, 8: 64, 16: 32, 32: 16}[side]
        n, c = max(2, 2**17 // channels**2), 10 if channels < 256 else 2
        x, g = self._random(n, channels, side, side), self._random(n, c, channels, side, side)
        out = torch.empty(n, c, channels, channels, 3, 3, device=self.device)
        flops = 2.0 * n * c * positions * 9 * channels**2
        return lambda: ops.per_sample_conv_grad(x, g, 3, padding=1, out=out), flops

    def factored(self, positions: int, classes: int) -> Case:
        """`factored_gram_` over so many positions and outputs."""
        from twophase_fast.ntk.cost import Sizes

        n, size = max(8, 128 // positions), 256
        a, g = self._random(n, positions, size), self._random(n, classes, positions, size)
        whole = torch.zeros(n * classes, n * classes, device=self.device)
        out = whole.view(n, classes, n, classes).permute(0, 2, 1, 3)
        flops = Sizes("outer", positions, size, size, size**2, True).factored_flops(classes, "full")
        return lambda: ops.factored_gram_(out, a, g), flops * n * (n + 1) / 2

    def copy(self, _: int) -> Case:
        """A copy into fresh memory."""
        source = self._random(2**23)
        return lambda: room(source.shape, source.dtype, self.device).copy_(source), 4.0 * 2**23

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)

    def _rate(self, run: Callable[[], object], amount: float) -> float:
        """Return the amount per second of the fastest of a few runs: whatever else runs only adds to their time."""
        self._seconds(run)
        seconds: list[float] = []
        while len(seconds) < _REPEATS or sum(seconds) < _LEAST_SECONDS:
            seconds.append(self._seconds(run))
        return amount / min(seconds)

    def _seconds(self, run: Callable[[], object]) -> float:
        started = time.perf_counter()
        run()
        finish(self.device)
        return time.perf_counter() - started


def finish(device: torch.device) -> None:
    """Wait until a device has done everything it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _machine(device: torch.device) -> dict[str, object]:
    own = _own_version()
    if device.type == "cuda":
        return {"processor": torch.cuda.get_device_name(device), "version": own}
    return {"processor": _processor(), "threads": torch.get_num_threads(), "isa": settings.isa() or "", "version": own}


@cache
def _own_version() -> str:
    try:
        return version("twophase_fast")
    except PackageNotFoundError:  # run from a source tree
        return "source"


@cache
def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "stepping"))]
            return " ".join(dict.fromkeys(names))
    except OSError:
        return platform.processor() or platform.machine()


def _path(device: torch.device) -> Path:
    parts = [str(value) for value in _machine(device).values() if value != ""]
    name = "".join(ch if ch.isalnum() else "-" for ch in "-".join(parts))
    return settings.cache_dir() / f"rates-{_FORMAT}-{name}.json"


def _read(path: Path) -> Rates:
    try:
        stored: Mapping[str, Sequence[Sequence[float]]] = json.loads(path.read_text(encoding="utf-8"))["rates"]
        return Rates(**{op: tuple((float(s), float(r)) for s, r in table) for op, table in stored.items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"cannot read the measured rates in {path}: {error}; remove the file") from error


def _write(path: Path, device: torch.device, rates: Rates) -> None:
    text = json.dumps({"machine": _machine(device), "rates": asdict(rates)}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(
            f"cannot write the measured rates to {path}: {error}; set TWOPHASE_CACHE_DIR to another folder"
        ) from error
