"""Cotangents pulled back by rule: every rule against torch's engine, the routes, and what the whole saves."""

import pytest
import torch
from torch import nn
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


def attention(mask=None, causal=False):
    def function(h):
        q, k, v = h[..., :4], h[..., 4:8] * 0.5, h[..., 8:].tanh()
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)

    return function


FUNCTIONS = {  # name -> (function, shape of its input); the node under test is the last one with a rule
    "add twice": (lambda h: h + h, (2, 5, 4)),
    "add scaled": (lambda h: torch.add(h, h, alpha=3), (2, 5)),
    "add repeated": (lambda h: h + h[:, :1], (2, 5)),
    "addition of a number": (lambda h: h + 2.5, (2, 5)),
    "attention": (attention(), (2, 3, 5, 12)),
    "attention with a causal mask": (attention(causal=True), (4, 3, 5, 12)),
    "attention with a mask": (attention(normal(4, 1, 5, 5, seed=2) > -0.5), (4, 3, 5, 12)),
    "attention with added scores": (attention(normal(5, 5, seed=2)), (2, 3, 5, 12)),
    "average pool": (lambda h: F.avg_pool2d(h, 3, 2, 1, count_include_pad=False), (2, 3, 7, 6)),
    "batched product": (lambda h: torch.bmm(h, h.transpose(1, 2)), (4, 5, 3)),
    "chunks": (lambda h: h.split([1, 3], 1)[0], (2, 4, 3)),
    "clone": (lambda h: h.clone(), (2, 4, 3)),
    "convolution": (lambda h: F.conv2d(h, normal(4, 3, 3, 2), stride=2, padding=1), (4, 3, 7, 6)),
    "convolution in 1-D": (lambda h: F.conv1d(h, normal(6, 1, 4), padding=3, groups=6), (2, 6, 7)),
    "difference": (lambda h: torch.sub(h, h[:, :1], alpha=2), (2, 4)),
    "elu": (F.elu, (2, 5, 4)),
    "expand": (lambda h: h.expand(-1, 5, 3), (4, 1, 3)),
    "gate": (lambda h: h * h.mean((2, 3), keepdim=True), (2, 5, 4, 3)),
    "gelu": (F.gelu, (2, 5, 4)),
    "hard sigmoid": (lambda h: F.hardsigmoid(3 * h), (2, 5, 4)),
    "join": (lambda h: torch.cat([h[:, 1:], normal(2, 3, 4), h], 1), (2, 5, 4)),
    "layer without bias": (lambda h: h @ normal(3, 5).t(), (4, 5)),
    "leaky relu": (F.leaky_relu, (2, 5, 4)),
    "linear layer": (lambda h: F.linear(h, normal(3, 5), normal(3)), (4, 5)),
    "logarithm of softmax": (lambda h: h.log_softmax(-2), (2, 5, 4)),
    "masked": (lambda h: h.masked_fill(normal(5, 4, seed=3) > 0, -3.0), (2, 5, 4)),
    "max pool": (lambda h: F.max_pool2d(h, 3, 2, 1, ceil_mode=True), (4, 3, 7, 6)),
    "mean": (lambda h: h.mean((1, -1), keepdim=True), (2, 5, 4, 3)),
    "mean, axes dropped": (lambda h: h.mean((-2, -1)), (4, 5, 4, 3)),
    "minus": (lambda h: -h, (2, 5)),
    "pad": (lambda h: F.pad(h, (1, 2, 0, 1)), (4, 3, 5)),
    "permute": (lambda h: h.permute(0, 3, 1, 2), (4, 2, 3, 5)),
    "permute, samples last": (lambda h: h.permute(1, 2, 0), (4, 3, 5)),
    "power": (lambda h: h**3, (2, 5)),
    "prelu": (lambda h: F.prelu(h, normal(5)), (2, 5, 4)),
    "product": (lambda h: h * (h + 1), (2, 5, 4)),
    "product with a constant": (lambda h: h * normal(4), (2, 5, 4)),
    "product with a constant per sample": (lambda h: h * normal(4, 1, 4), (4, 5, 4)),
    "quotient": (lambda h: h / normal(2, 5, 4, seed=3), (2, 5, 4)),
    "relu": (F.relu, (4, 5, 4)),
    "select": (lambda h: h.select(-1, -2), (4, 5, 3)),
    "silu": (F.silu, (2,)),
    "slice": (lambda h: h[:, -4:-1:2], (4, 5, 3)),
    "softmax": (lambda h: h.softmax(1), (4, 5, 3)),
    "softplus": (F.softplus, (2, 5, 4)),
    "split": (lambda h: h.split(2, -1)[1], (4, 3, 5)),
    "stack": (lambda h: torch.stack([h, normal(4, 3), h.exp()], 1), (4, 3)),
    "sum": (lambda h: h.sum(1), (2, 5, 4)),
    "tanh": (torch.tanh, (2, 5, 4)),
    "transpose": (lambda h: h.transpose(1, -1), (4, 2, 3)),
    "transpose, samples second": (lambda h: h.transpose(0, 1), (4, 2, 3)),
    "unbind": (lambda h: h.unbind(1)[2], (4, 3, 2)),
    "unbind before the samples": (lambda h: h.permute(1, 0, 2).unbind(0)[1], (4, 3, 2)),
    "unsqueeze": (lambda h: h.unsqueeze(1), (4, 3)),
    "view": (lambda h: h.view(4, 5), (2, 2, 5)),
    "view, samples apart": (lambda h: h.view(2, 2, 5), (4, 5)),
    "where": (lambda h: torch.where(normal(4, seed=3) > 0, h, h[:, :1]), (2, 4)),
}


UNSUPPORTED = {  # no blocks of that many entries on one side
    ("permute, samples last", 2),
    ("transpose, samples second", 2),
    ("unbind before the samples", 2),
    ("view, samples apart", 4),
}


def cases():
    for name, (_, shape) in FUNCTIONS.items():
        yield name, shape[0]
        if shape[0] == 4:
            yield name, 2  # two entries of the first axis in each block


@pytest.mark.parametrize(("name", "count"), list(cases()))
@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_rule_equals_the_engine(name, count, owned, held):
    function, shape = FUNCTIONS[name]
    h = normal(*shape).requires_grad_() * 1.0
    node = function(h).grad_fn
    slots = tuple(k for k, (below, _) in enumerate(node.next_functions) if below is not None)
    slots = slots[:1] if name == "prelu" else slots  # the other one is a parameter's
    if not backward.supports(node, slots, count):
        assert (name, count) in UNSUPPORTED
        return
    outputs = range(backward.outputs_of(node))
    shapes = [node._input_metadata[j].shape for j in outputs]
    cut = backward.blocks_of(node, count)
    gs = [cut.cut_each(normal(OUTPUTS, *shape, seed=j)) for j, shape in enumerate(shapes)]
    gs = [g if backward.takes_strided(node) else g.contiguous() for g in gs]
    before = [g.clone() for g in gs]
    sums = {}
    for slot in slots if held else ():
        source, j = node.next_functions[slot]
        room = backward.blocks_of(source, count).cut_each(normal(OUTPUTS, *source._input_metadata[j].shape, seed=9))
        sums[slot] = room.contiguous()
    added = {slot: room.clone() for slot, room in sums.items()}
    found = backward.backward(backward.Arrival(node, tuple(gs), owned, slots, sums, backward.Blocks(count)))
    assert owned or all(map(torch.equal, gs, before)), "what others read was overwritten"
    assert set(found) == set(slots)
    for k in range(OUTPUTS):
        seeds = [cut.join_each(g[:, k : k + 1], shape)[0] for g, shape in zip(before, shapes)]
        expected = node(*seeds)
        for slot in slots:
            source, j = node.next_functions[slot]
            result = found[slot] - added[slot] if sums.get(slot) is found[slot] else found[slot]
            wide = source._input_metadata[j].shape
            plain = backward.blocks_of(source, count).join_each(result[:, k : k + 1], wide)[0]
            one = (expected if isinstance(expected, tuple) else (expected,))[slot].sum_to_size(wide)
            torch.testing.assert_close(plain, one, rtol=1e-11, atol=1e-11)


def test_rows_without_a_key_give_nothing_back():
    mask = torch.tensor([[False, False], [True, False]])
    q = normal(2, 1, 2, 4).requires_grad_() * 1.0
    node = F.scaled_dot_product_attention(q, q * 2, q.tanh(), attn_mask=mask).grad_fn
    g = normal(2, OUTPUTS, 1, 2, 4, seed=1)
    found = backward.backward(backward.Arrival(node, (g,), False, (0, 1, 2), {}, backward.Blocks(2)))
    assert all(bool(result.isfinite().all()) for result in found.values())
    assert not found[0][:, :, :, 0].any()


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


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", [(2, 4), (6, 4), (2, 3, 5, 4)])
def test_normalisation_over_the_last_axis(shape, affine):
    norm = nn.LayerNorm(4, elementwise_affine=affine).double()
    if affine:
        nn.init.normal_(norm.weight, 1), nn.init.normal_(norm.bias)
    x = normal(*shape).requires_grad_() * 1.0
    y, cut = norm(x), backward.Blocks(2)
    g = normal(OUTPUTS, *shape, seed=1)
    assert backward.supports(y.grad_fn, (0,), 2)
    found = backward.norm_backward(
        backward.Arrival(y.grad_fn, (cut.cut_each(g).contiguous(),), False, (0,), {}, cut), None
    )
    assert found.weight.shape == found.bias.shape == (2, OUTPUTS, 4)
    for k in range(OUTPUTS):
        (expected,) = torch.autograd.grad(y, x, g[k], retain_graph=True)
        torch.testing.assert_close(cut.join_each(found.input[:, k : k + 1], shape)[0], expected)
        for n in range(2 if affine else 0):
            alone = torch.zeros_like(y)
            cut.cut(alone)[n] = cut.cut(g[k])[n]
            weight, bias = torch.autograd.grad(y, [norm.weight, norm.bias], alone, retain_graph=True)
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
    route = steps_of(model.double().eval(), x)[1]
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


@pytest.mark.parametrize(
    ("name", "batched"),
    [("mlp", True), ("vit", True), ("gpt_tied", True), ("tutorial_cnn", False)],
)
def test_torch_s_engine_alone_brings_the_same(monkeypatch, name, batched):
    """Without rules several outputs go in one batched call where every node can be called so."""
    monkeypatch.setattr("twophase_fast.ntk.route._by_rule", lambda *_: frozenset())
    model, x, _ = MODEL_CASES[name]()
    kernel, info = tp.entk(model, x, return_info=True)
    assert not info.plan.by_rule
    assert (info.looped == "") == batched
    assert info.plan.at_once > 1 if batched else info.plan.at_once == 1
    assert_same(kernel, tp.ntk.naive_entk(model, x))


class Doubled(torch.autograd.Function):
    """Doubles; its backward leaves torch, so that there is no batched one."""

    @staticmethod
    def forward(context, h):
        """Return 2 h."""
        return 2 * h

    @staticmethod
    def backward(context, g):
        """Return 2 g."""
        return torch.from_numpy(2 * g.numpy())


class Leaving(nn.Module):
    """Two layers with `Doubled` between."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 5)

    def forward(self, x):
        """Return [N, 5]."""
        return self.b(Doubled.apply(self.a(x)))


def test_nodes_without_a_batched_backward_are_run_output_by_output(monkeypatch):
    monkeypatch.setattr("twophase_fast.ntk.route._by_rule", lambda *_: frozenset())
    model, x = Leaving().double(), normal(4, 5)
    kernel, info = tp.entk(model, x, return_info=True)
    assert info.looped
    assert info.plan.at_once == 1
    assert_same(kernel, tp.ntk.naive_entk(model, x))
