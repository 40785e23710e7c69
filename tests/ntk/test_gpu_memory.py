"""What a kernel takes on a GPU, counted on one that is none, against what the planner predicted."""

import pytest
import torch
from torch import nn

import twophase_fast as tp
from tests.ntk.drivers import Eager
from tests.ntk.pretend import DEVICE, Ledger, PretendDevice, move_, moved
from twophase_fast import zoo
from twophase_fast.ntk import checks, computation, sizer


class Branch(nn.Module):
    """x + f(x) without convolutions."""

    def __init__(self, width):
        super().__init__()
        self.f = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        return x + self.f(x)


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """A device that is asynchronous, with nothing but tensors in its memory."""
    for module in (checks, computation):
        monkeypatch.setattr(module, "is_asynchronous", lambda device: device == DEVICE)
    monkeypatch.setattr(computation, "driver_of", lambda device: Eager())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type="cpu": False)
    with PretendDevice():
        yield


MODELS = {
    "residual": (lambda: zoo.resnet20(width=8), (8, 3, 32, 32)),
    "convolutions": (lambda: zoo.vgg16(width=0.125), (8, 3, 32, 32)),
    "linear": (lambda: zoo.mlp(64, (128,) * 3, 10), (300, 64)),
    "transformer": (lambda: zoo.vit(d=48, depth=3), (4, 3, 32, 32)),
    "residual_linear": (lambda: nn.Sequential(nn.Linear(20, 64), *map(Branch, [64] * 4), nn.Linear(64, 10)), (100, 20)),
}


@pytest.mark.parametrize("output", ["full", "trace"])
@pytest.mark.parametrize("name", MODELS)
def test_the_prediction_holds_what_a_pull_back_by_rule_takes(name, output):
    make, shape = MODELS[name]
    with Ledger().follow() as ledger:
        model, x = move_(make().eval()), moved(torch.randn(*shape, generator=torch.Generator().manual_seed(0)))
        before = ledger.now
        ledger.most = before
        kernel, info = tp.entk(model, x, output=output, return_info=True)
    assert info.plan.by_rule
    predicted, taken = info.plan.peak_bytes - sizer._GPU.library_bytes, ledger.most - before
    assert kernel.numel() * kernel.element_size() < taken <= predicted
    assert predicted < 2 * taken
