"""Every model, every output, symmetric and cross, against one `torch.autograd.grad` per sample and output."""

import pytest
import torch
from torch.utils import _pytree as pytree

import twophase_fast as tp
from twophase_fast._model_cases import MODEL_CASES
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


def _error(kernel, truth):
    return float((kernel - truth).norm() / truth.norm())


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
        assert _error(kernel, truth) < 1e-10, output
        assert _error(tp.entk(model, inputs, other, output=output, **cross), truth_cross) < 1e-10, output


def _reduce(full, output):
    if output == "full":
        return full
    if output == "sum":
        return full.sum((2, 3)) / full.shape[2]
    diagonal = full.diagonal(dim1=2, dim2=3)
    return diagonal if output == "diagonal" else diagonal.sum(-1)
