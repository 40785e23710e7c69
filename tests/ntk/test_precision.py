"""The precision that was asked for, and the one that ran."""

import pytest
import torch
from torch import nn

import twophase_fast as tp
from twophase_fast import _native


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 2))


def rows():
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


def test_a_cpu_without_a_matrix_unit_has_one_precision(monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", "avx512")
    kernel, info = tp.entk(net(), rows(), precision="medium", return_info=True)
    assert info.precision == "highest"
    assert torch.equal(kernel, tp.entk(net(), rows()))


@pytest.mark.skipif(_native.missing() is not None, reason="no C++ extension")
def test_a_matrix_unit_runs_high(monkeypatch):
    truth = tp.entk(net().double(), rows().double())
    monkeypatch.setenv("TWOPHASE_ISA", "amx-emulated")
    for precision, ran in (("highest", "highest"), ("high", "high"), ("medium", "high")):
        kernel, info = tp.entk(net(), rows(), precision=precision, return_info=True)
        assert info.precision == ran
        assert float((kernel - truth).norm() / truth.norm()) < (1e-6 if ran == "highest" else 1e-5)
    _, info = tp.entk(net().double(), rows().double(), precision="high", return_info=True)
    assert info.precision == "highest"


@pytest.mark.parametrize(("precision", "ran"), [("highest", "highest"), ("high", "high"), ("medium", "high")])
def test_convolutions_run_in_the_precision_that_is_named(precision, ran):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Tanh(), nn.Conv2d(32, 32, 3), nn.Flatten(), nn.Linear(32 * 14**2, 4))
    x = torch.randn(16, 3, 18, 18, generator=torch.Generator().manual_seed(1))
    truth = tp.entk(model.double(), x.double())
    kernel, info = tp.entk(model.float(), x, precision=precision, return_info=True)
    assert info.precision == ran
    assert float((kernel - truth).norm() / truth.norm()) < (1e-6 if ran == "highest" else 1e-5)
    highest = tp.entk(model, x)
    assert torch.equal(kernel, highest) == (ran == "highest"), "another arithmetic must have run"
    _, info = tp.entk(model.double(), x.double(), precision=precision, return_info=True)
    assert info.precision == "highest"


@pytest.mark.parametrize(("precision", "bound"), [("highest", 1e-6), ("high", 1e-5), ("medium", 2e-3)])
def test_kernels_through_triton_keep_their_bounds(monkeypatch, precision, bound):
    pytest.importorskip("triton")
    truth = tp.entk(net().double(), rows().double())
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("TWOPHASE_BACKEND", "triton")
    kernel, info = tp.entk(net(), rows(), precision=precision, return_info=True)
    assert info.precision == precision
    assert float((kernel - truth).norm() / truth.norm()) < bound


def test_float64_is_always_the_highest(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("TWOPHASE_BACKEND", "triton")
    _, info = tp.entk(net().double(), rows().double(), precision="medium", return_info=True)
    assert info.precision == "highest"
