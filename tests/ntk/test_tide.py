"""Bytes of the cotangents alive in a pull-back, counted before it is run, against counts by hand."""

import pytest
import torch
from torch import nn

import twophase_fast as tp
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.probe import probe
from twophase_fast.ntk.program import describe

UNIT = 4 * 7 * 7 * 8  # bytes of an image of 4 channels


class Residual(nn.Module):
    """Two convolutions around which the input goes."""

    def __init__(self):
        super().__init__()
        self.stem, self.readout = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 3)
        self.first, self.second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        return self.readout((x + self.second(self.first(x).relu())).mean((2, 3)))


@pytest.fixture
def alive():
    """Name of node -> bytes alive, in the order of the pull-back."""
    torch.manual_seed(0)
    model, x = Residual().double(), torch.randn(3, 2, 7, 7, dtype=torch.float64)
    structure = probe(Function(model, None, dict(model.named_parameters())), Batch(x, None, 3))
    found = describe(structure, None).alive
    return [(structure.graph.nodes[index].name().removesuffix("Backward0"), found[index].most) for index in found]


def test_every_step_counts_what_waits_and_what_it_makes(alive):
    assert alive == [
        ("Addmm", (3 + 4) * 8),
        ("MeanBackward1", 4 * 8 + UNIT),
        ("Add", UNIT),  # one cotangent goes two ways
        ("Convolution", UNIT + 2 * UNIT),
        ("Relu", UNIT + 2 * UNIT),  # in place
        ("Convolution", 2 * UNIT + UNIT),  # added to what went around
        ("Convolution", UNIT),  # the stem: nothing below
    ]


class Alike(nn.Module):
    """Two convolutions that keep the shape, around which the input goes, below a readout."""

    def __init__(self, *, tied: bool):
        super().__init__()
        self.first, self.readout = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.second = self.first if tied else nn.Conv2d(4, 4, 3, padding=1)
        self.stem = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        return self.readout((x + self.second(self.first(x).relu())).mean((2, 3)))


@pytest.mark.parametrize("tied", [False, True])
def test_convolutions_write_over_what_was_used_up(tied):
    torch.manual_seed(0)
    model, x = Alike(tied=tied).double(), torch.randn(3, 2, 7, 7, dtype=torch.float64)
    structure = probe(Function(model, None, dict(model.named_parameters())), Batch(x, None, 3))
    found = describe(structure, None).alive
    alive = [(structure.graph.nodes[index].name(), *found[index]) for index in found]
    above, relu, below = [(used, most) for name, used, most in alive if "Conv" in name or "Relu" in name][:3]
    assert above == (UNIT, 2 * UNIT)  # what arrived goes around, too
    assert relu == (2 * UNIT, 2 * UNIT)
    # added to what went around, unless the other use of the same weight still needs that
    assert below == (2 * UNIT, (3 if tied else 2) * UNIT)
    torch.testing.assert_close(tp.entk(model, x), tp.ntk.naive_entk(model, x))


def test_a_chain_of_convolutions_needs_room_for_one():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 3))
    model, x = model.double(), torch.randn(3, 2, 7, 7, dtype=torch.float64)
    structure = probe(Function(model, None, dict(model.named_parameters())), Batch(x, None, 3))
    found = describe(structure, None).alive
    assert max(alive.most for alive in found.values()) == 2 * UNIT + 3 * 8  # the readout's, and then no more
    torch.testing.assert_close(tp.entk(model, x), tp.ntk.naive_entk(model, x))


class Shifting(nn.Module):
    """Convolutions whose cotangents are views of one memory, which several of their weights read."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.stem, self.readout = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        x = self.one(x) + self.two(x) + x
        return self.readout((self.one(x) + self.two(x)).mean((2, 3)))


@pytest.mark.parametrize("params", [None, "one.weight", "*.bias", "stem.weight"])
def test_cotangents_that_others_still_read_are_left_alone(params):
    torch.manual_seed(0)
    model, x = Shifting().double(), torch.randn(3, 2, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(tp.entk(model, x, params=params), tp.ntk.naive_entk(model, x, params=params))
