"""What is timed for `--suite scaling`: seconds against the number of samples, and against the width of the MLP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from benchmarks.workloads import Workload, images
from twophase_fast import zoo

LIMIT_SECONDS = 20.0  # of one kernel
SAMPLES = (16, 32, 64, 128, 256, 512)
WIDTHS = (128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Point:
    """One point of a curve.

    Attributes:
        series: Title of the curve.
        axis: What grows: `samples` or `width`.
        value: How large it is here.
        workload: The kernel that is timed.
    """

    series: str
    axis: str
    value: int
    workload: Workload


def _series(
    name: str, title: str, axis: str, values: Sequence[int], model: Callable[[int], nn.Module], *shape: int
) -> Iterator[Point]:
    for value in values:
        inputs = images(value if axis == "samples" else 64, *shape)
        label = f"{name}-{axis}-{value}"
        yield Point(title, axis, value, Workload(label, title, partial(model, value), inputs, checked=2))


def next_seconds(times: Sequence[float]) -> float:
    """Guess the time of a series' next point: the last one's, grown as it has grown before, at least twofold."""
    if not times:
        return 0.0
    growth = times[-1] / times[-2] if len(times) > 1 else 2.0
    return times[-1] * max(2.0, growth)


POINTS = (
    *_series("mlp", "MLP 784-1024³-10", "samples", SAMPLES, lambda _: zoo.mlp(), 784),
    *_series("resnet20", "ResNet-20", "samples", SAMPLES, lambda _: zoo.resnet20(), 3, 32, 32),
    *_series("vgg16", "VGG-16 (BN)", "samples", SAMPLES, lambda _: zoo.vgg16(), 3, 32, 32),
    *_series("mlp", "MLP 784-w³-10, N=64", "width", WIDTHS, lambda width: zoo.mlp(widths=(width,) * 3), 784),
)
"""All points; those of one series are neighbours and grow."""
