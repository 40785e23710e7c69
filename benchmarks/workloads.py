"""What is timed: models from the zoo, with seeded inputs. One row per workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from twophase_fast import zoo

PEERS = (
    "torch.func",
    "torch.func chunked",
    "torchjd",
    "neural-tangents 1",
    "neural-tangents 2",
    "neural-tangents 3",
)


@dataclass(frozen=True)
class Workload:
    """A model, its inputs and the kernel wanted.

    Attributes:
        name: Unique, used on the command line and in results.
        title: For tables.
        model: Builds the model (float32, seeded).
        inputs: Builds the inputs, N samples on the first axis.
        output: `full` or `trace`.
        peers: Peers that run it, besides twophase_fast, in the order of the table.
        hopeless: Peer -> why it is not tried: more than a minute on two cores, or more memory than they have.
        checked: Samples, drawn at random, whose entries are compared with float64.
        suite: `default`, `large` (needs tens of GB or many minutes) or `smoke` (seconds).
    """

    name: str
    title: str
    model: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], torch.Tensor]
    output: str = "full"
    peers: tuple[str, ...] = PEERS
    hopeless: Mapping[str, str] = field(default_factory=dict)
    checked: int = 4
    suite: str = "default"

    def build(self) -> tuple[nn.Module, torch.Tensor]:
        """Return the model in evaluation mode and its inputs; the same ones every time."""
        model = self.model().eval()
        generator = torch.Generator().manual_seed(1)
        randomise(model, generator)
        return model, self.inputs(generator)


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Give BatchNorm the statistics and scales of a trained network, not the constants it starts with."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)


def images(samples: int, *shape: int) -> Callable[[torch.Generator], torch.Tensor]:
    """Standard normal inputs `[samples, *shape]`."""
    return lambda generator: torch.randn(samples, *shape, generator=generator)


def tokens(samples: int, length: int, vocabulary: int) -> Callable[[torch.Generator], torch.Tensor]:
    """Uniform tokens `[samples, length]`."""
    return lambda generator: torch.randint(vocabulary, (samples, length), generator=generator)


_JACOBIAN = "its Jacobian takes 30 GB"
_QUADRATIC = "more than a minute: it grows with N², from {} at N={}"
_SLOW_PRODUCTS = {"neural-tangents 2": _QUADRATIC.format("34 s", 32)}

WORKLOADS: dict[str, Workload] = {
    row.name: row
    for row in (
        Workload("mlp-64", "MLP 784-1024³-10, N=64", zoo.mlp, images(64, 784), suite="large"),
        Workload(
            "mlp-256",
            "MLP 784-1024³-10, N=256",
            zoo.mlp,
            images(256, 784),
            hopeless={
                "torch.func": _JACOBIAN,
                "torch.func chunked": _JACOBIAN,
                "torchjd": _QUADRATIC.format("20 s", 64),
                "neural-tangents 1": _JACOBIAN,
                "neural-tangents 2": _QUADRATIC.format("4.5 s", 64),
            },
        ),
        Workload("cnn-16", "CNN of the PyTorch tutorial, N=16", zoo.tutorial_cnn, images(16, 3, 32, 32)),
        Workload("resnet20-32", "ResNet-20, N=32", zoo.resnet20, images(32, 3, 32, 32)),
        Workload("resnet20-128", "ResNet-20, N=128", zoo.resnet20, images(128, 3, 32, 32), hopeless=_SLOW_PRODUCTS),
        Workload(
            "resnet20-128-trace",
            "ResNet-20, N=128, trace",
            zoo.resnet20,
            images(128, 3, 32, 32),
            "trace",
            hopeless=_SLOW_PRODUCTS,
        ),
        Workload(
            "vgg16-8",
            "VGG-16 (BN), N=8",
            zoo.vgg16,
            images(8, 3, 32, 32),
            checked=3,
            hopeless={"neural-tangents 2": "more than a minute"},
        ),
        Workload(
            "vit-32",
            "ViT d=192, 6 layers, 65 tokens, N=32",
            zoo.vit,
            images(32, 3, 32, 32),
            hopeless={"neural-tangents 2": "more than three minutes"},
        ),
        Workload(
            "gpt-4-trace",
            "GPT d=128, 4 layers, 64 tokens, V=1,000 tied, N=4, trace",
            zoo.gpt,
            tokens(4, 64, 1000),
            "trace",
            ("torch.func", "torch.func chunked"),
            checked=2,
            suite="large",
        ),
        Workload("smoke-mlp", "MLP 784-32-10, N=8", lambda: zoo.mlp(widths=(32,)), images(8, 784), suite="smoke"),
        Workload(
            "smoke-vgg16",
            "VGG-16 (BN) of 1/16 width, N=3",
            lambda: zoo.vgg16(width=0.0625),
            images(3, 3, 32, 32),
            suite="smoke",
        ),
        Workload(
            "smoke-trace",
            "ResNet-20 of width 4, N=3, trace",
            lambda: zoo.resnet20(width=4),
            images(3, 3, 32, 32),
            "trace",
            suite="smoke",
        ),
    )
}


def of_suite(suite: str) -> list[Workload]:
    """Rows of a suite, in order."""
    return [row for row in WORKLOADS.values() if row.suite == suite]


def warm_up() -> tuple[nn.Module, Any]:
    """A tiny model and inputs that make every peer load its code."""
    return zoo.mlp(inputs=4, widths=(3,), outputs=2), torch.ones(2, 4)
