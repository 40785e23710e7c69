"""`NTKOperator`: products equal those with the kernel, for every kind of model, and leave the model as it was."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import twophase_fast as tp
from tests.ntk.helpers import mlp, x
from twophase_fast._model_cases import MODEL_CASES, Apply
from twophase_fast._types import InputError, UnsupportedModelError

# Everything else goes by forward mode.
WAYS = {
    "embedding_bag": "factors",
    "embedding_padding": "double-VJP",
    "tied_readout_with_padding": "double-VJP",
    "weight_norm": "double-VJP",
    "routed_experts": "double-VJP",
    "flipped_samples_inside": "double-VJP",
}


def _close(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("name", MODEL_CASES)
def test_products_equal_those_with_the_kernel(name):
    model, inputs, options = MODEL_CASES[name]()
    op = tp.NTKOperator(model, inputs, **options)
    kernel = tp.as_matrix(tp.entk(model, inputs, **options))
    assert op.shape == kernel.shape
    v = x(op.shape[0], 2)
    _close(op @ v[:, 0], kernel @ v[:, 0])
    _close(op @ v, kernel @ v)
    assert op.way == WAYS.get(name, "forward-mode")


@pytest.mark.parametrize("name", ["mlp", "resnet20", "gpt_tied", "lstm", *WAYS])
def test_jvp_and_vjp_are_adjoint_and_jvp_is_a_derivative(name):
    model, inputs, options = MODEL_CASES[name]()
    op = tp.NTKOperator(model, inputs, **options)
    w, u = x(op.num_parameters), x(*op.jvp(torch.zeros(op.num_parameters)).shape, seed=1)
    pushed = op.jvp(w)
    torch.testing.assert_close((pushed * u).sum(), (op.vjp(u) * w).sum(), rtol=1e-9, atol=1e-9)
    if name not in ("embedding_padding", "tied_readout_with_padding"):  # padding rows count as constants
        torch.testing.assert_close(
            pushed, _difference(model, inputs, w), rtol=1e-4, atol=1e-5 * float(pushed.abs().max())
        )


def _difference(model, inputs, w, h=1e-5):
    """Central difference of the outputs along w."""
    start = nn.utils.parameters_to_vector(model.parameters()).detach()
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            nn.utils.vector_to_parameters(start + sign * h * w, model.parameters())
            values.append(model(inputs))
        nn.utils.vector_to_parameters(start, model.parameters())
    return (values[0] - values[1]) / (2 * h)


@pytest.mark.parametrize("name", ["resnet20", "vit", "gpt_tied", "embedding_bag", "weight_norm", "routed_experts"])
def test_tiles_agree(name):
    model, inputs, options = MODEL_CASES[name]()
    op = tp.NTKOperator(model, inputs, **options)
    v = x(op.shape[0], 3)
    whole = op @ v
    for tile in (1, 3):
        op.tile = tile
        _close(op @ v, whole)


@pytest.mark.parametrize("way", ["double-VJP", "factors"])
@pytest.mark.parametrize("name", ["grouped_cnn", "vit", "gpt_tied", "conv1d", "conv3d", "weight_transposed", "lstm"])
def test_ways_agree(name, way):
    model, inputs, options = MODEL_CASES[name]()
    op = tp.NTKOperator(model, inputs, **options)
    assert op.way == "forward-mode"
    w = x(op.num_parameters)
    forward = op.jvp(w)
    op.way = way
    _close(op.jvp(w), forward)


def test_columns_may_be_treated_a_few_at_a_time():
    model, inputs = mlp(), x(4, 5)
    op = tp.NTKOperator(model, inputs, memory_budget=40_000)
    assert op._columns() < 30
    v = x(12, 30)
    _close(op @ v, tp.as_matrix(tp.entk(model, inputs)) @ v)
    assert (op @ v[:, :0]).shape == (12, 0)


def test_vectors_and_dicts_of_parameters():
    model, inputs = mlp(), x(4, 5)
    op = tp.NTKOperator(model, inputs)
    assert op.num_parameters == sum(p.numel() for p in model.parameters())
    u = x(4, 3, seed=1)
    flat, parts = op.vjp(u), op.vjp(u, as_dict=True)
    gradients = torch.autograd.grad((model(inputs) * u).sum(), list(model.parameters()))
    assert list(parts) == [name for name, _ in model.named_parameters()]
    for part, gradient in zip(parts.values(), gradients):
        _close(part, gradient)
    _close(flat, torch.cat([g.flatten() for g in gradients]))
    _close(op.vjp(u.flatten()), flat)
    _close(op.jvp(parts), op.jvp(flat))
    _close(op.jvp(parts).flatten(), op @ u.flatten())
    only = {"2.bias": torch.ones(3, dtype=torch.float64)}
    _close(op.jvp(only), torch.ones(4, 3, dtype=torch.float64))


def test_one_output_per_sample_drops_the_axis():
    model, inputs = mlp(), x(4, 5)
    op = tp.NTKOperator(model, inputs, output_fn=lambda y: y.square().sum(1))
    kernel = tp.entk(model, inputs, output_fn=lambda y: y.square().sum(1), output="trace")
    assert op.shape == (4, 4)
    assert op.outputs == 1
    assert op.jvp(op.vjp(x(4))).shape == (4,)
    _close(op @ x(4), kernel @ x(4))


def test_targets_and_selected_parameters():
    model, inputs, targets = mlp(), x(4, 5), torch.tensor([0, 2, 1, 1])
    options = {"output_fn": lambda y, t: -F.cross_entropy(y, t, reduction="none"), "targets": targets, "params": "2.*"}
    op = tp.NTKOperator(model, inputs, **options)
    assert op.num_parameters == 24
    op.tile = 3
    _close(op @ x(4), tp.as_matrix(tp.entk(model, inputs, **options)) @ x(4))


def test_eigenvalues_by_scipy():
    linalg = pytest.importorskip("scipy.sparse.linalg", reason="needs SciPy")
    model, inputs, _ = MODEL_CASES["small_cnn"]()
    op = tp.NTKOperator(model, inputs).to_scipy()
    values, vectors = linalg.eigsh(op, k=3, v0=np.ones(op.shape[0]))
    kernel = tp.as_matrix(tp.entk(model, inputs)).numpy()
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(kernel)[-3:], rtol=1e-9)
    np.testing.assert_allclose(kernel @ vectors, vectors * values, atol=1e-8 * values.max())
    np.testing.assert_allclose(op @ np.eye(len(kernel)), kernel, rtol=1e-9, atol=1e-9)
    assert op.dtype == np.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_models(dtype):
    model, inputs = mlp(dtype), x(4, 5, dtype=dtype)
    op = tp.NTKOperator(model, inputs)
    assert op.dtype == torch.float32
    v = x(12, dtype=torch.float32)
    truth = tp.as_matrix(tp.entk(model.double(), inputs.double())) @ v.double()
    bound = 1e-5 if dtype == torch.float32 else 0.05
    model.to(dtype)
    assert float((op @ v - truth).norm() / truth.norm()) < bound


def test_the_operator_follows_the_model():
    model, inputs = mlp(), x(4, 5)
    op = tp.NTKOperator(model, inputs)
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    _close(op @ x(12), tp.as_matrix(tp.entk(model, inputs)) @ x(12))


class Remembering(nn.Module):
    """Uses its weight through a list, which a substituted parameter would not reach."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(x(3, 5))
        self.hidden = [self.weight]

    def forward(self, v):
        """Return tanh(v W^T)."""
        return F.linear(v, self.hidden[0]).tanh()


class Unforeseen(torch.autograd.Function):
    """Doubles; knows neither forward mode nor a second derivative."""

    @staticmethod
    def forward(context, v):
        """Return 2 v."""
        return 2 * v

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, g):
        """Return 2 g."""
        return 2 * g


def _with_leak(s, v):
    with torch.no_grad():
        scale = s.b(v).mean(1, keepdim=True)
    return s.a(v) * scale + s.b(v)[:, :3]


ODD = {
    "a parameter in a list": (Remembering, "forward-mode"),
    "one module under two names": (lambda: _twice(nn.Linear(5, 5)), "forward-mode"),
    "a constant to the pull-back alone": (
        lambda: Apply(_with_leak, a=nn.Linear(5, 3), b=nn.Linear(5, 5)),
        "double-VJP",
    ),
    "only a pull-back": (lambda: Apply(lambda s, v: Unforeseen.apply(s.a(v)).tanh(), a=nn.Linear(5, 3)), "factors"),
    "only a pull-back, of a group normalisation": (
        lambda: Apply(lambda s, v: Unforeseen.apply(s.b(s.a(v))), a=nn.Linear(5, 4), b=nn.GroupNorm(2, 4)),
        "factors",
    ),
    "only a pull-back, of a node without a rule": (
        lambda: Apply(
            lambda s, v: Unforeseen.apply(torch.cdist(s.a(v), s.b.weight)), a=nn.Linear(5, 3), b=nn.Linear(3, 2)
        ),
        "factors",
    ),
    "an unused parameter": (lambda: Apply(lambda s, v: s.a(v), a=nn.Linear(5, 3), b=nn.Linear(2, 2)), "forward-mode"),
}


def _twice(layer):
    return Apply(lambda s, v: s.second(s.first(v).tanh()), first=layer, second=layer)


@pytest.mark.parametrize("name", ODD)
def test_odd_models(name):
    build, way = ODD[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().double()
    inputs = x(4, 5)
    op = tp.NTKOperator(model, inputs)
    assert op.way == way
    _close(op @ x(op.shape[0]), tp.as_matrix(tp.entk(model, inputs)) @ x(op.shape[0]))


@pytest.mark.parametrize("name", ["mlp", "resnet20", "embedding_padding", "embedding_bag", "shared_module_two_names"])
def test_nothing_changes(name):
    model, inputs, _ = MODEL_CASES[name]()
    before = {n: (p, p._version, p.detach().clone(), p.grad) for n, p in model.named_parameters(remove_duplicate=False)}
    state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    y = model(inputs).sum()
    op = tp.NTKOperator(model, inputs)
    op @ x(op.shape[0])
    op.jvp(x(op.num_parameters))
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(before)
    for n, (p, version, value, grad) in before.items():
        assert after[n] is p
        assert p._version == version
        assert p.grad is grad is None
        assert torch.equal(p, value)
        with torch.autograd.forward_ad.dual_level():
            assert torch.autograd.forward_ad.unpack_dual(p).tangent is None
    y.backward()  # a graph of the user's own is still good
    assert torch.equal(state, torch.get_rng_state())
    assert torch.backends.mha.get_fastpath_enabled() == fast


REFUSED = {
    "vector of another length": (lambda op: op @ torch.zeros(11), r"\(12,\) or \(12, B\).*\(11,\)"),
    "array": (lambda op: op @ np.zeros(12), "ndarray"),
    "three axes": (lambda op: op @ torch.zeros(12, 1, 1), r"\(12, 1, 1\)"),
    "cotangent": (lambda op: op.vjp(torch.zeros(3, 4)), r"\(4, 3\) or \(12,\).*\(3, 4\)"),
    "direction": (lambda op: op.jvp(torch.zeros(5)), r"\(5,\); expected a flat vector \(66,\)"),
    "unknown parameter": (lambda op: op.jvp({"9.weight": torch.zeros(1)}), "'9.weight' is not among"),
    "shape of a parameter": (
        lambda op: op.jvp({"0.bias": torch.zeros(1)}),
        r"'0.bias' has shape \(1,\); expected \(7,\)",
    ),
    "number": (lambda op: op.jvp(3.0), "float"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_arguments(name):
    call, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        call(tp.NTKOperator(mlp(), x(4, 5)))


def test_refused_construction():
    with pytest.raises(InputError, match="smallest that works is"):
        tp.NTKOperator(mlp(), x(4, 5), memory_budget=100)
    with pytest.raises(InputError, match="precision='low'"):
        tp.NTKOperator(mlp(), x(4, 5), precision="low")
    with pytest.raises(UnsupportedModelError, match="samples are coupled"):
        tp.NTKOperator(Apply(lambda s, v: s.a(v) - s.a(v).mean(0), a=nn.Linear(5, 3).double()), x(4, 5))


def test_training_mode_is_noticed_later():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double().eval()
    op = tp.NTKOperator(model, x(4, 5))
    model.train()
    with pytest.raises(UnsupportedModelError, match="training mode"):
        op @ x(8)


def test_the_smallest_budget_works():
    model, inputs = mlp(), x(4, 5)
    with pytest.raises(InputError) as caught:
        tp.NTKOperator(model, inputs, memory_budget=1)
    smallest = int(str(caught.value).split("works is ")[1].split()[0])
    op = tp.NTKOperator(model, inputs, memory_budget=smallest)
    _close(op @ x(12), tp.as_matrix(tp.entk(model, inputs)) @ x(12))
