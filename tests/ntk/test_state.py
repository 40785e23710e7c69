"""The model, its gradients, hooks and every random generator are as before afterwards, also after an exception."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import twophase_fast as tp
from twophase_fast._types import InputError, UnsupportedModelError
from twophase_fast.ntk import checks
from twophase_fast.ntk.checks import all_finite


def x(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Counting(nn.Module):
    """Counts its calls in a buffer and draws from no generator."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, v):
        self.calls += 1
        return self.layer(v)


def _snapshot(model):
    return {
        "flags": {name: m.training for name, m in model.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "values": {name: t.clone() for name, t in model.state_dict().items()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "hooks": {name: list(m._forward_hooks) + list(m._backward_hooks) for name, m in model.named_modules()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),
        "python": random.getstate(),
        "precision": torch.get_float32_matmul_precision(),
        "grad_mode": torch.is_grad_enabled(),
    }


def _assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        if isinstance(a[key], dict):
            _assert_same(a[key], b[key])
        elif isinstance(a[key], torch.Tensor | np.ndarray):
            assert (a[key] == b[key]).all(), key
        else:
            assert a[key] == b[key], key


def test_older_and_newer_precision_switches_agree_inside():
    seen = []

    def read(y):
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32))
        return y

    torch.set_float32_matmul_precision("high")
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision
    try:
        tp.entk(nn.Linear(5, 3), torch.ones(2, 5), output_fn=read)
        assert set(seen) == {("highest", False)}
        assert torch.get_float32_matmul_precision() == "high"
        assert (torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision) == before
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def _model():
    model = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5).eval(), nn.ReLU(inplace=True), Counting())
    model[0].weight.grad = torch.full((5, 5), 7.0)
    model[3].layer.bias.requires_grad_(False)
    model[0].register_forward_hook(lambda *_: None)
    return model


def test_nothing_changes():
    model = _model()
    before = _snapshot(model)
    with torch.no_grad():
        tp.entk(model, x(4, 5))
    _assert_same(before, _snapshot(model))


@pytest.mark.parametrize("precision", ["medium", "high", "highest"])
def test_precision_switch_is_restored(precision):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        tp.entk(_model(), x(4, 5))
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_nothing_changes_after_an_exception():
    model = _model()
    before = _snapshot(model)
    with pytest.raises(InputError):
        tp.entk(model, x(4, 5), output_fn=lambda y: y[:, :, None])
    with pytest.raises(UnsupportedModelError):
        tp.entk(model, x(4, 5), output_fn=lambda y: y + torch.rand(3))
    _assert_same(before, _snapshot(model))


def test_parameter_hooks_do_not_fire():
    model, fired = _model(), []
    model[0].weight.register_hook(fired.append)
    model[0].weight.register_post_accumulate_grad_hook(fired.append)
    tp.entk(model, x(4, 5))
    assert not fired


@pytest.mark.parametrize(("values", "finite"), [([3e38, 3e38], True), ([1.0, float("nan")], False), ([], True)])
@pytest.mark.parametrize("infinite", [(), (float("inf"), -float("inf"))])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_all_finite(values, finite, infinite, on_gpu, monkeypatch):
    monkeypatch.setattr(checks, "is_asynchronous", lambda device: on_gpu)
    tensor = torch.tensor([*values, *infinite], requires_grad=True)
    assert bool(all_finite(tensor)) == (finite and not infinite)
