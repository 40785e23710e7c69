"""While a block of the kernel is computed on a GPU, the host never waits for it, and no tensor is left on the host."""

import pytest
import torch
from torch import nn

import twophase_fast as tp
from tests.ntk.drivers import Eager
from tests.ntk.helpers import in_groups
from tests.ntk.pretend import DEVICE, Pretend, PretendDevice, WaitedError, move_, moved, waiting
from twophase_fast._model_cases import MODEL_CASES
from twophase_fast._types import InputError, UnsupportedModelError
from twophase_fast.ntk import block, checks, computation
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import Batch


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """A device that is asynchronous, on which a block may not wait."""
    enqueue = block.Block.enqueue

    def watched(self):
        with waiting.forbidden():
            return enqueue(self)

    monkeypatch.setattr(block.Block, "enqueue", watched)
    for module in (checks, computation):
        monkeypatch.setattr(module, "is_asynchronous", lambda device: device == DEVICE)
    monkeypatch.setattr(computation, "driver_of", lambda device: Eager())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type="cpu": False)  # torch knows no such device
    with PretendDevice():
        yield


WAIT_THEMSELVES = {
    "flipped_samples_inside": "samples are labelled anew on every tile",
    "routed_experts": "forward() asks which rows go where",
}


def assert_equal(kernel, expected):
    assert isinstance(kernel, Pretend)
    assert float((kernel.inner - expected).norm() / expected.norm()) < 1e-10


@pytest.mark.parametrize("name", [name for name in MODEL_CASES if name != "weight_indexed"])  # a list: not here
def test_no_model_makes_the_host_wait(name, monkeypatch):
    if name in WAIT_THEMSELVES:
        monkeypatch.setattr(waiting, "meet", lambda what: None)
    model, inputs, options = MODEL_CASES[name]()
    for output in ("full", "trace"):
        wanted = {"output": output, "return_info": True}
        expected, there = tp.entk(model, inputs, **wanted, **options)
        kernel, here = tp.entk(move_(MODEL_CASES[name]()[0]), moved(inputs), **wanted, **moved(options))
        assert_equal(kernel, expected)
        assert here.plan.by_rule == there.plan.by_rule


@pytest.mark.parametrize("name", ["small_cnn", "gpt_tied", "embedding_padding", "linear_3d"])
@pytest.mark.parametrize("output", ["full", "trace", "diagonal", "sum"])
def test_neither_do_tiles_groups_and_two_sides(name, output, monkeypatch):
    model, inputs, options = MODEL_CASES[name]()
    other = inputs[:3].flip(0)
    expected = tp.entk(model, inputs, other, output=output, **options)
    for count in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(computation, "make_plan", in_groups(computation.make_plan, count))
            model = move_(MODEL_CASES[name]()[0])
            kernel = tp.entk(model, moved(inputs), moved(other), output=output, tile=2, **moved(options))
        assert_equal(kernel, expected)


class Asks(nn.Module):
    """A model that asks the GPU for a number."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return self.layer(x) * float(x.abs().max().detach() >= 0)


def test_this_finds_a_model_that_waits():
    with pytest.raises(WaitedError, match="_local_scalar_dense"):
        tp.entk(move_(Asks()), moved(torch.ones(2, 5)))


def test_this_finds_a_tensor_left_on_the_host():
    model, host = move_(nn.Linear(5, 3)), torch.ones(3)
    with pytest.raises(RuntimeError, match="same device"):
        tp.entk(model, moved(torch.ones(2, 5)), output_fn=lambda y: y * host)


def test_values_are_looked_at_in_the_end(monkeypatch):
    model = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2))
    x = torch.ones(9, 5)
    x[7] = 3e38
    model[0].weight.data.fill_(1.0)
    with pytest.raises(InputError, match="first in sample 1"):  # of a tile of two samples
        tp.entk(move_(nn.Sequential(model[0], nn.Linear(3, 2))), moved(x), tile=2)


def test_a_jacobian_that_is_not_finite_is_named():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return (self.scale**2).sqrt() + x

    with pytest.raises(UnsupportedModelError, match="'scale' has NaN"):
        tp.entk(move_(Root()), moved(torch.ones(2, 3)))


def test_samples_that_others_change_are_found_in_the_end():
    class Coupled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            return self.layer(x) * (1.0 if len(x) < 6 else 2.0)

    with pytest.raises(UnsupportedModelError, match="coupled through the batch"):
        tp.entk(move_(Coupled()), moved(torch.ones(8, 5)))


def test_a_gpu_takes_larger_tiles(monkeypatch):
    model, inputs, _ = MODEL_CASES["small_cnn"]()
    many = inputs.repeat(300, 1, 1, 1)[:700]

    def tile(model, x):
        asked = computation.Computation(function_of(model), batch_of(x), batch_of(x), "trace", None, 2**33)
        return asked.prepare().tile

    assert tile(model, many) <= 256
    assert tile(move_(model), moved(many)) == 700


@pytest.mark.parametrize("name", ["small_cnn", "resnet20", "mlp", "vit"])
def test_a_gpu_pulls_all_outputs_back_at_once(name):
    model, inputs, _ = MODEL_CASES[name]()
    plans = {}
    for where, (net, x) in {"cpu": (model, inputs), "gpu": (move_(MODEL_CASES[name]()[0]), moved(inputs))}.items():
        plans[where] = computation.Computation(function_of(net), batch_of(x), None, "trace", None, 2**33).prepare()
    here, there = plans["gpu"], plans["cpu"]
    assert here.by_rule
    assert here.at_once == here.chunk == here.task.classes
    assert here.task.asynchronous
    assert here.peak_bytes > there.peak_bytes, "work areas of cuBLAS, and what cuDNN makes beside what is there"


def function_of(model):
    return Function(model, None, dict(model.named_parameters()))


def batch_of(x):
    return Batch(x, None, len(x))
