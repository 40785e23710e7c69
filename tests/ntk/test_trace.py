"""Layouts that follow from what nodes are known to do are the measured ones; under hooks they are measured."""

import pytest
import torch
from torch import nn

import twophase_fast as tp
from tests.ntk.helpers import x
from twophase_fast import zoo
from twophase_fast._model_cases import MODEL_CASES, Apply
from twophase_fast._types import UnsupportedModelError
from twophase_fast.ntk import probe as probe_module
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import make_batch
from twophase_fast.ntk.labels import label
from twophase_fast.ntk.parameters import select_parameters
from twophase_fast.ntk.probe import probe
from twophase_fast.rules.layout import labels_agree

IRREGULAR = {"flipped_samples_inside", "routed_experts"}


def structure_of(model, inputs, output_fn=None, targets=None, params=None):
    function = Function(model, output_fn, select_parameters(model, params))
    return probe(function, make_batch(inputs, targets, name="x1", device=function.device))


def pulled_back(monkeypatch):
    """Return the list of how many nodes every labelling asks for."""
    counts = []

    def counting(graph, nodes=None):
        asked = graph.nodes if nodes is None else list(nodes)
        counts.append(len(asked))
        return label(graph, asked)

    monkeypatch.setattr(probe_module, "label", counting)
    return counts


@pytest.mark.parametrize("name", MODEL_CASES)
def test_layouts_are_those_of_labels(name, monkeypatch):
    model, inputs, options = MODEL_CASES[name]()
    counts = pulled_back(monkeypatch)
    structure = structure_of(model, inputs, **options)
    assert (structure.signature is None) == (name in IRREGULAR)
    if name in IRREGULAR:
        return
    assert not any(counts)  # nothing had to be pulled back
    labels = label(structure.smaller)
    for use in structure.uses:
        node = structure.smaller.nodes[use.node]
        assert labels.sorted[node]
        assert all(labels_agree(layout, labels.elements[node, j]) for j, layout in use.layouts.items())


MODELS = {
    "resnet": (lambda: zoo.resnet20(width=4), (3, 32, 32)),
    "vgg": (lambda: zoo.vgg16(width=0.0625), (3, 32, 32)),
    "vit": (lambda: zoo.vit(), (3, 32, 32)),
}


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_pulled_back_for_common_models(name, monkeypatch):
    build, shape = MODELS[name]
    counts = pulled_back(monkeypatch)
    structure = structure_of(build().eval(), torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))
    assert structure.uses
    assert not any(counts)


def hooked(hook, register=torch.Tensor.register_hook):
    def forward(s, x):
        h = s.a(x).tanh()
        register(h, hook)
        return s.b(h)

    return Apply(forward, a=nn.Linear(5, 4), b=nn.Linear(4, 3)).double()


REGISTER = {
    "on a tensor": torch.Tensor.register_hook,
    "before a node": lambda h, hook: h.grad_fn.register_prehook(lambda grads: (hook(grads[0]),)),
    "after a node": lambda h, hook: h.grad_fn.register_hook(lambda grads, _: (hook(grads[0]),)),
}


@pytest.mark.parametrize("way", REGISTER)
def test_hooks_that_mix_samples_are_seen(way):
    with pytest.raises(UnsupportedModelError, match="mixes samples"):
        tp.entk(hooked(lambda g: g - g.mean(0), REGISTER[way]), x(4, 5))


def test_hooks_that_look_are_harmless(monkeypatch):
    counts, seen = pulled_back(monkeypatch), []
    model = hooked(seen.append)
    torch.testing.assert_close(tp.entk(model, x(4, 5)), tp.ntk.naive_entk(model, x(4, 5)))
    assert any(counts)
    assert seen


def test_a_node_that_nobody_knows_is_measured(monkeypatch):
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return 2 * value

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    counts = pulled_back(monkeypatch)
    model = Apply(lambda s, x: s.b(Double.apply(s.a(x))), a=nn.Linear(5, 4), b=nn.Linear(4, 3)).double()
    torch.testing.assert_close(tp.entk(model, x(4, 5)), tp.ntk.naive_entk(model, x(4, 5)))
    assert counts == [1]  # only what lies below it
