"""The pull-back by rule as a GPU runs it: Triton under its interpreter, the libraries' versions, cuDNN's BatchNorm."""

import pytest
import torch
from torch import nn

import twophase_fast as tp
from tests.ntk.pretend import Pretend, PretendDevice, move_, moved
from twophase_fast import ops
from twophase_fast.ops import _dispatch
from twophase_fast.rules import backward

OUTPUTS = 3


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Residual(nn.Module):
    """A branch that is added before a BatchNorm with a ReLU, a pooled mean and a linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)
        self.n, self.m, self.w = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Linear(3, OUTPUTS)
        for norm in (self.n, self.m):
            norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        """Return [N, 3]."""
        h = self.n(self.a(x)).relu()
        h = self.m(self.c(h) + self.b(h)).relu()
        return self.w(h.mean((2, 3)))


class Rows(nn.Module):
    """Attention's products and LayerNorm over positions."""

    def __init__(self):
        super().__init__()
        self.n, self.a, self.w = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, OUTPUTS)

    def forward(self, x):
        """Return [N, 3]."""
        h = self.a(self.n(x)).tanh()
        return self.w(((h @ h.mT).softmax(-1) @ h).mean(1))


MODELS = {
    "linear": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, OUTPUTS)), (3, 4)),
    "residual": (Residual, (2, 2, 4, 4)),
    "rows": (Rows, (2, 3, 4)),
}


def build(name):
    torch.manual_seed(0)
    make, shape = MODELS[name]
    return make().double().eval(), normal(*shape)


def error(kernel, expected) -> float:
    return float((kernel - expected).norm() / expected.norm())


@pytest.fixture
def ran(monkeypatch):
    """The ops that ran, with their backends."""
    found, choose = set(), _dispatch.choose

    def watched(op, *arguments):
        found.add((op, chosen := choose(op, *arguments)))
        return chosen

    monkeypatch.setattr(_dispatch, "choose", watched)
    return found


PULLED = {
    "linear": {("linear_input_grad_", "library"), ("relu_grad_", "triton")},
    "residual": {("conv_input_grad_", "library"), ("batch_norm_grad_out", "triton"), ("linear_input_grad_", "library")},
    "rows": {("linear_input_grad_", "library"), ("batched_product_", "library"), ("layer_norm_grad_out", "triton")},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_way_with_triton_forced(name, monkeypatch, ran):
    pytest.importorskip("triton")
    model, x = build(name)
    expected = tp.ntk.naive_entk(model, x)
    for variable, value in (("TRITON_INTERPRET", "1"), ("TWOPHASE_BACKEND", "triton"), ("TWOPHASE_AUTOTUNE", "0")):
        monkeypatch.setenv(variable, value)
    ran.clear()
    kernel, info = tp.entk(model, x, return_info=True)
    assert info.plan.by_rule
    assert info.plan.at_once == OUTPUTS
    assert error(kernel, expected) < 1e-12
    assert PULLED[name] <= ran
    assert not {op for op, backend in ran if backend in ("cpu", "reference")}


@pytest.mark.parametrize("name", MODELS)
def test_results_of_a_library_are_taken_as_they_are(name, monkeypatch):
    """On a device that is no CPU convolutions return new memory, which a second branch is added to."""
    model, x = build(name)
    expected = tp.ntk.naive_entk(model, x)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type="cpu": False)  # torch knows no such device
    called, pulled = [], ops.conv_input_grad
    monkeypatch.setattr(
        ops, "conv_input_grad", lambda g, *given, **named: called.append(g) or pulled(g, *given, **named)
    )
    with PretendDevice():
        kernel = tp.entk(move_(model), moved(x))
    assert error(kernel.inner, expected) < 1e-12
    assert all(isinstance(g, Pretend) for g in called)
    assert bool(called) == (name == "residual")


class Renamed:
    """A node as a GPU's forward pass leaves it: what a CPU's saved, some of it under other names."""

    def __init__(self, node, name, **names):
        self._node, self._name, self._names = node, name, names

    def name(self):
        return self._name

    def __getattr__(self, name):
        wanted = name.removeprefix("_saved_")
        if wanted in self._names.values():
            raise AttributeError(name)
        return getattr(self._node, f"_saved_{self._names[wanted]}" if wanted in self._names else name)


def saved(name):
    """What torch says that nodes of a name save."""
    return {field for field in dir(getattr(torch._C._functions, name)) if field.startswith("_saved_")}


def test_batch_norm_of_cudnn():
    norm = nn.BatchNorm2d(3, eps=0.1).double().eval()
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), nn.init.normal_(norm.weight)
    z = norm(normal(2, 3, 4, 4).requires_grad_() * 1.0)
    g, results = normal(2, OUTPUTS, 3, 4, 4, seed=1), []
    for node in (z.grad_fn, Renamed(z.grad_fn, "CudnnBatchNormBackward0", epsilon="eps")):
        assert node.name() in backward.BATCH_NORMS
        assert backward.supports(node, (0,), 2)
        found = backward.norm_backward(backward.Arrival(node, (g,), False, (0,), {}, backward.Blocks(2)))
        results.append((found.input, found.weight, found.bias))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    for name in backward.BATCH_NORMS:
        assert saved(name) >= {f"_saved_{field}" for field in ("input", "running_mean", "running_var", "training")}
        assert saved(name) & {"_saved_eps", "_saved_epsilon"}


@pytest.mark.parametrize("masked", ["none", "causal", "mask"])
def test_memory_efficient_attention(masked):
    """The rule needs no sums of the kernel's, whose precision and padding are its own."""
    q, k, v = (normal(2, 2, 5, 4, seed=k).requires_grad_() * 1.0 for k in range(3))
    mask = normal(2, 2, 5, 5, seed=4)
    mask[0, 0, 1] = -torch.inf  # no key at all
    options = {"none": {}, "causal": {"is_causal": True}, "mask": {"attn_mask": mask}}[masked]
    y = nn.functional.scaled_dot_product_attention(q, k, v, **options)
    name = "ScaledDotProductEfficientAttentionBackward0"
    node = Renamed(y.grad_fn, name, attn_bias="attn_mask", log_sumexp="logsumexp")
    assert backward.supports(node, (0, 1, 2), 2)
    g = normal(2, OUTPUTS, 2, 5, 4, seed=5)
    found = backward.backward(backward.Arrival(node, (g,), False, (0, 1, 2), {}, backward.Blocks(2)))
    for c in range(OUTPUTS):
        expected = torch.autograd.grad(y, (q, k, v), g[:, c], retain_graph=True)
        for slot in range(3):
            torch.testing.assert_close(found[slot][:, c], expected[slot])
    fields = ("query", "key", "value", "attn_bias", "is_causal", "scale", "dropout_p")
    assert saved(name) >= {f"_saved_{field}" for field in fields}


def test_half_precision_attention_is_left_to_the_engine():
    fused = ("ScaledDotProductFlashAttention", "ScaledDotProductCudnnAttention")
    assert not {f"{name}Backward0" for name in fused} & set(backward._RULES)
