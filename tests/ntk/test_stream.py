"""`out=`: tiles into tensors, memmaps and HDF5 data sets; cut off and resumed; never mixed up."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import twophase_fast as tp
from twophase_fast._types import InputError
from twophase_fast.ntk import computation


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def x(n, seed=0):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def budget(output):
    """A budget whose kernel tiles hold three samples a side."""
    return {"full": 9, "diagonal": 3}.get(output, 1) * 8 * 9 * 4


@pytest.fixture(autouse=True)
def _tiny_overhead(monkeypatch):
    """Let the planner ignore the budget, so that a few bytes of it choose small kernel tiles."""
    monkeypatch.setattr(computation, "make_plan", _unbounded(computation.make_plan))


def _unbounded(make_plan):
    return lambda *args, budget, **rest: make_plan(*args, budget=2**30, **rest)


@pytest.mark.parametrize("output", ["full", "trace", "diagonal", "sum"])
@pytest.mark.parametrize("cross", [False, True])
def test_fills_a_tensor(output, cross):
    model, other = net(), x(4, seed=1) if cross else None
    expected = tp.entk(model, x(8), other, output=output)
    out = torch.full(expected.shape, float("nan"), dtype=torch.float64)
    returned, info = tp.entk(model, x(8), other, output=output, out=out, memory_budget=budget(output), return_info=True)
    assert returned is out
    assert info.seconds["gram"] > 0
    torch.testing.assert_close(out, expected)


def _targets(tmp_path):
    memmap = np.lib.format.open_memmap(tmp_path / "k.npy", mode="w+", dtype=np.float64, shape=(8, 8))
    dataset = h5py.File(tmp_path / "k.h5", "w").create_dataset("k", (8, 8), np.float64, fillvalue=np.nan)
    return {"memmap": memmap, "dataset": dataset}


@pytest.mark.parametrize("kind", ["memmap", "dataset"])
def test_cut_off_and_resumed(tmp_path, monkeypatch, kind):
    model, expected = net(), tp.entk(net(), x(8), output="trace").numpy()
    out = _targets(tmp_path)[kind]
    calls = []
    block = computation.Computation.enqueue

    def failing(self, rows, columns, **options):
        calls.append(self)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return block(self, rows, columns, **options)

    monkeypatch.setattr(computation.Computation, "enqueue", failing)
    with pytest.raises(KeyboardInterrupt):
        tp.entk(model, x(8), output="trace", out=out, memory_budget=budget("trace"))
    tp.entk(model, x(8), output="trace", out=out, memory_budget=budget("trace"))
    assert len(calls) == 1 + 6  # six tiles on and above the diagonal, one of them tried twice
    np.testing.assert_allclose(out[...], expected)
    tp.entk(model, x(8), output="trace", out=out, memory_budget=budget("trace"))
    assert len(calls) == 7  # nothing was missing


@pytest.mark.parametrize("kind", ["memmap", "dataset"])
def test_other_computations_are_refused(tmp_path, kind):
    out = _targets(tmp_path)[kind]
    tp.entk(net(), x(8), output="trace", out=out)
    with pytest.raises(InputError, match="another computation"):
        tp.entk(net(), x(8, seed=3), output="trace", out=out)
    with pytest.raises(InputError, match="another computation"):
        tp.entk(net(), x(8), output="sum", out=out)


def test_log_lies_beside_the_memmap(tmp_path):
    out = _targets(tmp_path)["memmap"]
    tp.entk(net(), x(8), output="trace", out=out)
    assert json.loads(Path(f"{out.filename}.tiles.json").read_text())["done"] == "1"


def test_bad_targets():
    with pytest.raises(InputError, match=r"shape \(8, 7\); this kernel has shape \(8, 8\)"):
        tp.entk(net(), x(8), output="trace", out=torch.zeros(8, 7))
    with pytest.raises(InputError, match="out is a str"):
        tp.entk(net(), x(8), output="trace", out="k.npy")
    with pytest.raises(InputError, match="per_parameter"):
        tp.entk(net(), x(8), output="trace", out=torch.zeros(8, 8), per_parameter=True)
    for whole in (torch.zeros(8, 8, dtype=torch.int32), np.zeros((8, 8), dtype=np.int32)):
        with pytest.raises(InputError, match=r"int32, which cannot hold a kernel; make it float32 or float64"):
            tp.entk(net(), x(8), output="trace", out=whole)


def test_targets_that_are_read_only(tmp_path):
    frozen = np.zeros((8, 8), dtype=np.float32)
    frozen.flags.writeable = False
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["k"] = frozen
    with h5py.File(tmp_path / "k.h5", "r") as file:
        for out in (frozen, file["k"]):
            with pytest.raises(InputError, match="out is read-only"):
                tp.entk(net(), x(8), output="trace", out=out)
