"""When blocks are added: as the factors come where one tile holds all samples, else when all tiles are there."""

import pytest
import torch
from torch import nn

import twophase_fast as tp
from twophase_fast.ntk import block, naive_entk
from twophase_fast.ntk.stopwatch import Stopwatch


def deep_net():
    torch.manual_seed(0)
    layers = [layer for _ in range(5) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())]
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), *layers, nn.Flatten(), nn.Linear(100, 7), nn.GELU(), nn.Linear(7, 3)
    ).eval()


def images(n):
    return torch.randn(n, 2, 7, 7, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


@pytest.fixture
def held(monkeypatch):
    """How many parameters' factors were on shelves whenever one was put there."""
    counts, shelves = [], {}
    put = block.Shelf.put

    def counted_put(shelf, *args, **options):
        put(shelf, *args, **options)
        shelves[id(shelf)] = shelf
        counts.append(sum(not s.empty for s in shelves.values()))

    monkeypatch.setattr(block.Shelf, "put", counted_put)
    return counts


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_factors_of_one_tile_are_not_kept(held, output, monkeypatch):
    monkeypatch.setattr(block, "WAITING_BYTES", 0)
    model, x = deep_net().double(), images(6)
    kernel = tp.entk(model, x, output=output, tile=6)
    assert held
    assert max(held) == 1
    torch.testing.assert_close(kernel, naive_entk(model, x, output=output), rtol=1e-10, atol=1e-10)


def test_small_factors_wait_and_are_added_in_the_order_of_the_parameters(held, monkeypatch):
    model, x = deep_net().double(), images(6)
    added, add = [], block.Block._add

    def noted(self, accumulator, name, shelves):
        added.append(name)
        add(self, accumulator, name, shelves)

    monkeypatch.setattr(block.Block, "_add", noted)
    tp.entk(model, x, tile=6)
    assert added == [name for name, _ in model.named_parameters() if name in added]
    assert max(held) > 10


def test_factors_of_several_tiles_wait_for_each_other(held):
    model, x = deep_net().double(), images(6)
    tiled = tp.entk(model, x, tile=3)
    assert max(held) > 10
    torch.testing.assert_close(tiled, tp.entk(model, x, tile=6), rtol=1e-11, atol=1e-11)


def test_a_stage_inside_another_one_is_counted_once(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("twophase_fast.ntk.stopwatch.time.perf_counter", lambda: next(clock))
    watch, seconds = Stopwatch(torch.device("cpu")), {"capture": 0.0, "gram": 0.0}
    with watch.timed("capture", seconds), watch.timed("gram", seconds):
        pass
    assert seconds == {"capture": 7.0, "gram": 3.0}
