"""Every model, every output, symmetric and cross, against one `torch.autograd.grad` per sample and output."""

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import twophase_fast as tp
from tests.ntk.helpers import error
from twophase_fast._model_cases import MODEL_CASES, Apply
from twophase_fast._types import UnsupportedModelError
from twophase_fast.ntk import naive_entk

OUTPUTS = ("full", "trace", "diagonal", "sum")


def _second(inputs, options):
    """Return other samples of the same kind: the first three, moved a little where they are real numbers."""

    def move(t):
        return t[:3].flip(0) + 0.25 if t.is_floating_point() else t[:3].flip(0)

    cross = dict(options)
    if "targets" in cross:
        cross["targets2"] = cross["targets"][:3]
    return pytree.tree_map_only(torch.Tensor, move, inputs), cross


@pytest.mark.parametrize("name", MODEL_CASES)
def test_equals_the_naive_loop(name):
    model, inputs, options = MODEL_CASES[name]()
    other, cross = _second(inputs, options)
    full = naive_entk(model, inputs, **options)
    full_cross = naive_entk(model, inputs, other, **cross)
    assert full.norm() > 0
    for output in OUTPUTS:
        truth, truth_cross = _reduce(full, output), _reduce(full_cross, output)
        kernel = tp.entk(model, inputs, output=output, **options)
        assert kernel.dtype == torch.float64
        assert kernel.shape == truth.shape
        assert not kernel.requires_grad
        assert error(kernel, truth) < 1e-10, output
        assert error(tp.entk(model, inputs, other, output=output, **cross), truth_cross) < 1e-10, output


def _reduce(full, output):
    if output == "full":
        return full
    if output == "sum":
        return full.sum((2, 3)) / full.shape[2]
    diagonal = full.diagonal(dim1=2, dim2=3)
    return diagonal if output == "diagonal" else diagonal.sum(-1)


@pytest.mark.parametrize("name", ["linear", "convolution"])
def test_a_model_that_casts_inside(name):
    layers = {"linear": (nn.Flatten(), nn.Linear(48, 5)), "convolution": (nn.Conv2d(3, 5, 3), nn.Flatten())}[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(*layers, nn.ReLU(), nn.LazyLinear(2))
        inputs = torch.randn(4, 3, 4, 4)
        body(inputs)

    def forward(s, x):
        with torch.autocast("cpu", torch.bfloat16):
            return s.body(x).float()

    model = Apply(forward, body=body)
    torch.testing.assert_close(tp.entk(model, inputs), naive_entk(model, inputs), rtol=1e-5, atol=1e-5)


class Scaled(torch.autograd.Function):
    """A linear layer in Python."""

    @staticmethod
    def forward(context, v, w, scale):
        """Return scale v W^T."""
        context.save_for_backward(v, w)
        context.scale = scale
        return scale * (v @ w.T)

    @staticmethod
    def backward(context, g):
        """Return the gradients of v and W."""
        v, w = context.saved_tensors
        return context.scale * g @ w, context.scale * g.T @ v, None


def _scaled_twice(copied):
    def forward(s, v):
        h = Scaled.apply(v, s.w, 2.0).tanh()
        return Scaled.apply(h, s.w * 1 if copied else s.w, 0.5)

    generator = torch.Generator().manual_seed(0)
    w, v = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (3, 4))
    return Apply(forward, w=nn.Parameter(w)), v


def test_functions_in_python_with_parameters():
    model, inputs = _scaled_twice(copied=True)
    assert error(tp.entk(model, inputs), naive_entk(model, inputs)) < 1e-12
    with pytest.raises(UnsupportedModelError, match="several ways"):
        tp.entk(*_scaled_twice(copied=False))
