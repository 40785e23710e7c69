"""Cotangents pulled back by rule: every rule against torch's engine, the routes, and what the whole saves."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import GradientEdge
from torch.nn import functional as F

import twophase_fast as tp
from twophase_fast import zoo
from twophase_fast._model_cases import MODEL_CASES
from twophase_fast.ntk import pullback
from twophase_fast.ntk.capture import Seeds
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.probe import probe
from twophase_fast.ntk.route import Call, Engine, Norm, Route, Single, find_route
from twophase_fast.rules import backward

OUTPUTS = 3  # cotangents per sample


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


FUNCTIONS = {
    "add twice": (lambda h: h + h, (2, 5, 4)),
    "add scaled": (lambda h: torch.add(h, h, alpha=3), (2, 5)),
    "average pool": (lambda h: F.avg_pool2d(h, 3, 2, 1, count_include_pad=False), (2, 3, 7, 6)),
    "convolution": (lambda h: F.conv2d(h, normal(4, 3, 3, 2), stride=2, padding=1), (2, 3, 7, 6)),
    "convolution in 1-D": (lambda h: F.conv1d(h, normal(6, 1, 4), padding=3, groups=6), (2, 6, 7)),
    "elu": (F.elu, (2, 5, 4)),
    "gelu": (F.gelu, (2, 5, 4)),
    "hard sigmoid": (lambda h: F.hardsigmoid(3 * h), (2, 5, 4)),
    "leaky relu": (F.leaky_relu, (2, 5, 4)),
    "max pool": (lambda h: F.max_pool2d(h, 3, 2, 1, ceil_mode=True), (2, 3, 7, 6)),
    "mean": (lambda h: h.mean((1, -1), keepdim=True), (2, 5, 4, 3)),
    "mean, axes dropped": (lambda h: h.mean((-2, -1)), (2, 5, 4, 3)),
    "minus": (lambda h: -h, (2, 5)),
    "relu": (F.relu, (2, 5, 4)),
    "silu": (F.silu, (2,)),
    "softplus": (F.softplus, (2, 5, 4)),
    "tanh": (torch.tanh, (2, 5, 4)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("owned", [False, True])
def test_rule_equals_the_engine(name, owned):
    function, shape = FUNCTIONS[name]
    h = normal(*shape).requires_grad_() * 1.0
    node = function(h).grad_fn
    while node.next_functions[0][0] is not h.grad_fn and not backward.supports(node, (0,), len(h)):
        node = node.next_functions[0][0]
    source = node.next_functions[0][0]
    slots = tuple(k for k, (below, _) in enumerate(node.next_functions) if below is source)
    assert backward.supports(node, slots, len(h))
    out = node._input_metadata[0].shape
    g = normal(out[0], OUTPUTS, *out[1:], seed=1)
    before = g.clone()
    found = backward.backward(backward.Arrival(node, (g,), owned, slots, {}, backward.Blocks(out[0])))
    assert owned or torch.equal(g, before), "what others read was overwritten"
    total = sum(found.values())
    for k in range(OUTPUTS):
        (expected,) = torch.autograd.grad(
            [GradientEdge(node, 0)], [GradientEdge(source, 0)], [before[:, k]], retain_graph=True
        )
        torch.testing.assert_close(total[:, k], expected, rtol=1e-12, atol=1e-12)


def test_a_mean_over_no_axes_is_one_over_all():
    h = normal(1, 5).requires_grad_() * 1.0
    assert not backward.supports(h.mean((), keepdim=True).grad_fn, (0,), 1)


@pytest.mark.parametrize("relu", [False, True])
def test_normalisation_with_its_parameters(relu):
    norm = nn.BatchNorm2d(4).double().eval()
    norm.running_mean.copy_(normal(4)), norm.running_var.copy_(normal(4).square() + 0.1)
    x = normal(2, 4, 3, 5).requires_grad_() * 1.0
    y = norm(x)
    z = y.relu() if relu else y
    g = normal(2, OUTPUTS, 4, 3, 5, seed=1)
    found = backward.norm_backward(
        backward.Arrival(y.grad_fn, (g,), False, (0,), {}, backward.Blocks(2)), z.grad_fn if relu else None
    )
    for k in range(OUTPUTS):
        (expected,) = torch.autograd.grad(z, x, g[:, k], retain_graph=True)
        torch.testing.assert_close(found.input[:, k], expected)
        for n in range(2):
            alone = torch.zeros_like(z).index_copy(0, torch.tensor([n]), g[n : n + 1, k])
            weight, bias = torch.autograd.grad(z, [norm.weight, norm.bias], alone, retain_graph=True)
            torch.testing.assert_close(found.weight[n, k], weight)
            torch.testing.assert_close(found.bias[n, k], bias)


def probed(model, x):
    function = Function(model, None, dict(model.named_parameters()))
    return probe(function, Batch(x, None, len(x)))


def steps_of(model, x):
    structure = probed(model, x)
    graph = structure.graph
    return graph, find_route(graph, (0, graph.output.output_nr), structure.uses)


def test_a_residual_network_goes_by_rule():
    graph, route = steps_of(zoo.resnet20(width=4).double().eval(), normal(4, 3, 16, 16))
    engine = {graph.nodes[k].name() for step in route.steps if isinstance(step, Engine) for k in step.nodes}
    assert not any("Convolution" in name or "BatchNorm" in name or "Relu" in name for name in engine)
    norms = [step for step in route.steps if isinstance(step, Norm)]
    assert len(norms) == 19
    assert sum(step.relu is not None for step in norms) == 10, "one ReLU in each block and the first one go along"
    assert len(route.summed) == 19


@pytest.mark.parametrize("build", [lambda: (zoo.mlp(5, (7, 7), 3), normal(4, 5)), lambda: _vit()])
def test_linear_layers_and_transformers_go_by_rule(build):
    model, x = build()
    graph, route = steps_of(model.double().eval(), x)
    assert not any(isinstance(step, Engine | Call) for step in route.steps)
    assert route.by_rule


def _vit():
    return zoo.vit(3, image_size=8, patch=4, d=8, depth=1, heads=2), normal(4, 3, 8, 8)


def test_exits_below_one_another_are_called_one_by_one():
    model, x = Excitation(torch.maximum).double(), normal(4, 2, 6, 6)
    graph, route = steps_of(model, x)
    called = {graph.nodes[step.node].name() for step in route.steps if isinstance(step, Call)}
    assert called == {"MaximumBackward0"}
    assert any(isinstance(step, Single) for step in route.steps)
    assert_same(tp.entk(model, x), tp.ntk.naive_entk(model, x))


def test_nodes_with_weights_are_never_called_alone():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.w = nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x):
            h = self.a(x)
            return torch.baddbmm(h, self.w(h), x[:, :3, :4]).mean(1)

    model, x = Gated().double(), normal(4, 6, 5)
    assert steps_of(model, x)[1].plain
    assert_same(tp.entk(model, x), tp.ntk.naive_entk(model, x))


class Product(torch.autograd.Function):
    """Multiplies, in Python."""

    @staticmethod
    def forward(context, a, b):
        """Return a b."""
        context.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(context, g):
        """Return g b and g a."""
        a, b = context.saved_tensors
        return g * b, g * a


class Excitation(nn.Module):
    """Channels scaled by a gate computed from them: exits of the product lie below one another."""

    def __init__(self, product):
        super().__init__()
        self.a, self.b, self.w, self.product = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3), nn.Conv2d(4, 4, 1), product

    def forward(self, x):
        """Return [N, 3]."""
        h = self.a(x).relu()
        gate = self.w(h.mean((2, 3), keepdim=True)).sigmoid()
        return self.b(self.product(h, gate.expand_as(h))).mean((2, 3))


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("hooked", [False, True])
def test_functions_in_python_are_left_to_the_engine(hooked):
    model = Excitation(torch.mul if hooked else Product.apply).double()
    if hooked:
        model.b.register_full_backward_hook(lambda *_: None)
    x = normal(4, 2, 6, 6)
    assert_same(tp.entk(model, x), tp.ntk.naive_entk(model, x))


def assert_same(kernel, truth, bound=1e-12):
    assert float((kernel - truth).norm() / truth.norm()) < bound


@pytest.mark.parametrize("at_once", [1, 2, 5])
@pytest.mark.parametrize(
    "name", ["conv_preactivation", "conv_squeeze_excitation", "conv_stack_over_windows", "resnet20"]
)
def test_any_number_at_once_brings_the_same(monkeypatch, name, at_once):
    model, x, _ = MODEL_CASES[name]()
    structure = probed(model, x)
    graph = structure.graph
    start = Seeds(graph, torch.eye(structure.outputs, dtype=torch.float64)[:5])
    found = pullback.pull_back(start, structure.uses, at_once)
    monkeypatch.setattr(pullback, "find_route", lambda *_: Route((), frozenset(), frozenset()))
    expected = pullback.pull_back(start, structure.uses)
    assert not expected.sums
    assert set(found.cotangents) == set(expected.cotangents) - {(node, 0) for node, _ in found.sums}
    for place, cotangents in found.cotangents.items():
        torch.testing.assert_close(cotangents, expected.cotangents[place], rtol=1e-11, atol=1e-12)


def test_float32_is_as_exact_as_the_engine():
    torch.manual_seed(0)
    model = zoo.resnet20(width=8).eval()
    x = torch.randn(6, 3, 16, 16)
    truth = tp.entk(model.double(), x.double())
    kernel, info = tp.entk(model.float(), x, return_info=True)
    assert info.plan.at_once == 10, "all outputs at once"
    jacobian = torch.func.functional_call
    rows = torch.func.vmap(torch.func.jacrev(lambda p, one: jacobian(model, p, (one[None],))[0]), (None, 0))(
        {k: v.detach() for k, v in model.named_parameters()}, x
    )
    flat = torch.cat([r.flatten(2) for r in rows.values()], 2)
    peer = torch.einsum("ncp,mdp->nmcd", flat, flat)
    assert _error(kernel, truth) <= 2 * _error(peer, truth)


def _error(kernel, truth):
    return float((kernel.double() - truth).norm() / truth.norm())


def test_factors_are_handed_over_as_they_arrive():
    model, x, _ = MODEL_CASES["resnet20"]()
    structure = probed(model, x)
    start = Seeds(structure.graph, torch.eye(structure.outputs, dtype=torch.float64))
    held = []

    def arrived(node, found):
        found.cotangents.pop((node, 0), None)
        held.append(len(found.cotangents))

    found = pullback.pull_back(start, structure.uses, len(start), arrived=arrived)
    assert held
    assert max(held) <= 1
    assert not found.cotangents
