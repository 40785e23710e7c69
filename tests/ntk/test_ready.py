"""The graph that the probe leaves for the capture: the model runs no more often than needed, results are exact."""

import gc

import pytest
import torch
from torch import nn

import twophase_fast as tp
from twophase_fast._types import UnsupportedModelError
from twophase_fast.ntk import computation, naive_entk
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.probe import probe
from twophase_fast.ntk.program import describe


class Counting(nn.Module):
    """A network that notes how many samples it is run on."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.sizes = body, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        return self.body(x)


def counted() -> tuple[Counting, torch.Tensor]:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 6), nn.GELU())
    return Counting(nn.Sequential(body, nn.Linear(6, 3))).double(), torch.randn(7, 2, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("output", ["full", "trace", "diagonal", "sum"])
def test_a_small_batch_runs_once_beside_the_smallest(output):
    model, x = counted()
    kernel = tp.entk(model, x, output=output)
    assert model.sizes == [2, 7]
    torch.testing.assert_close(kernel, naive_entk(model, x, output=output), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"tile": 4}, {"tile": 7}, {"memory_budget": "8MiB"}, {"x2": True}])
def test_otherwise_the_probe_stays_small(options, monkeypatch):
    monkeypatch.setattr(computation, "_SHARE", 1e-6)
    model, x = counted()
    if "x2" in options:
        options = {"x2": torch.randn(5, 2, 4, 4, dtype=torch.float64)}
    tp.entk(model, x, **options)
    assert model.sizes[:2] == [2, 3]


def test_large_batches_are_not_probed_whole(monkeypatch):
    monkeypatch.setattr(computation, "_AFFORDABLE", 1000)
    model, x = counted()
    kernel = tp.entk(model, x)
    assert model.sizes == [2, 3, 7]
    torch.testing.assert_close(kernel, naive_entk(model, x), rtol=1e-12, atol=1e-12)


def test_sizes_per_sample_do_not_depend_on_the_batch():
    model, x = counted()
    function = Function(model, None, dict(model.named_parameters()))
    structures = [probe(function, Batch(x, None, len(x)), affordable=limit) for limit in (0, 2**20)]
    assert [len(s.rows) for s in structures] == [3, 7]
    tiny, whole = (describe(structure, None) for structure in structures)
    assert [cut.bytes for cut in tiny.cuts] == [cut.bytes for cut in whole.cuts]
    assert (tiny.saved_bytes, tiny.widest_bytes, tiny.alive) == (whole.saved_bytes, whole.widest_bytes, whole.alive)
    assert tiny.below == whole.below


def test_a_coupling_that_only_large_batches_show_is_refused():
    class Coupled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x)
            return y + y.mean(0) if len(x) > 3 else y

    with pytest.raises(UnsupportedModelError):
        tp.entk(Coupled(), torch.randn(6, 3))


def test_nothing_stays_alive():
    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    model, x = counted()
    counts = []
    for options in ({}, {}, {"tile": 4}, {}):
        tp.entk(model, x, **options)
        counts.append(alive())
    assert len(set(counts)) == 1


@pytest.mark.parametrize("options", [{}, {"tile": 4}])
def test_an_activation_that_was_written_over_is_refused(options):
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.sigmoid(self.first(x))
            twice = 2 * y
            y.mul_(3)
            return self.last(twice)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        tp.entk(Overwriting(), torch.randn(6, 3), **options)
