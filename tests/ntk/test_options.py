"""Options of `entk`: tiles, parameter selection, per-parameter kernels, symmetry, repeatability, float32 error."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

import twophase_fast as tp
from twophase_fast import rules
from twophase_fast._model_cases import MODEL_CASES
from twophase_fast._types import InputError
from twophase_fast.ntk import naive_entk
from twophase_fast.ntk.verify import VerificationError

TILED = [
    "resnet20",
    "vit",
    "gpt_tied",
    "lstm",
    "routed_experts",
    "conv_over_windows",
    "sequence_first",
    "embedding_bag",
]


@pytest.mark.parametrize("name", TILED)
@pytest.mark.parametrize("tile", [1, 3])
def test_tiles_agree(name, tile):
    model, inputs, options = MODEL_CASES[name]()
    whole = tp.entk(model, inputs, **options)
    tiled, info = tp.entk(model, inputs, tile=tile, return_info=True, **options)
    assert info.plan.tile == tile
    torch.testing.assert_close(tiled, whole, rtol=1e-11, atol=1e-11 * float(whole.abs().max()))
    cross = tp.entk(model, inputs, inputs, tile=tile, **options)
    torch.testing.assert_close(cross, whole, rtol=1e-11, atol=1e-11 * float(whole.abs().max()))


PARTS = ["resnet20", "vit", "gpt_tied", "weight_norm", "shared_module_two_names", "tied_readout_with_padding"]


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("output", ["full", "trace", "diagonal", "sum"])
def test_per_parameter_sums_to_the_kernel(name, output):
    model, inputs, options = MODEL_CASES[name]()
    parts = tp.entk(model, inputs, output=output, per_parameter=True, **options)
    assert list(parts) == [n for n, _ in model.named_parameters()]
    torch.testing.assert_close(sum(parts.values()), tp.entk(model, inputs, output=output, **options))


@pytest.mark.parametrize("params", ["*bias", ["0.weight", "4.*"], lambda name: name.endswith("weight")])
def test_selected_parameters(params):
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel, truth = tp.entk(model, x, params=params), naive_entk(model, x, params=params)
    torch.testing.assert_close(kernel, truth)
    assert float((kernel - tp.entk(model, x)).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["resnet20", "vit", "mlp", "vgg16_narrow"])
def test_symmetric_and_repeatable_to_the_bit(name):
    model, inputs, _ = MODEL_CASES[name]()
    model, inputs = model.float(), inputs.float()
    for output in ("full", "trace", "diagonal", "sum"):
        kernel = tp.entk(model, inputs, output=output)
        mirrored = kernel.permute(1, 0, 3, 2) if output == "full" else kernel.transpose(0, 1)
        assert torch.equal(kernel, mirrored)
        assert torch.equal(kernel, tp.entk(model, inputs, output=output))
    assert kernel.dtype == torch.float32


def _torch_func(model, x):
    """The kernel of the PyTorch tutorial: Jacobians by vmap(jacrev), contracted per parameter."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def single(p, sample):
        return functional_call(model, {**p, **dict(model.named_buffers())}, (sample[None],)).squeeze(0)

    jacobians = vmap(jacrev(single), (None, 0))(parameters, x)
    flat = torch.cat([j.flatten(2) for j in jacobians.values()], 2)
    return torch.einsum("ncp,mdp->nmcd", flat, flat)


@pytest.mark.parametrize("name", ["mlp", "tutorial_cnn", "resnet20", "vit", "vgg16_narrow", "grouped_cnn"])
def test_float32_error_at_most_twice_torch_func(name):
    model, inputs, _ = MODEL_CASES[name]()
    truth = naive_entk(model, inputs)
    model, inputs = model.float(), inputs.float()
    if name == "resnet20":  # torch.func refuses in-place updates of captured tensors
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False

    def error(kernel):
        return float((kernel.double() - truth).norm() / truth.norm())

    assert error(tp.entk(model, inputs)) <= 2 * error(_torch_func(model, inputs))


def test_mixed_dtypes_accumulate_in_the_widest():
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = tp.entk(model, x, output_fn=lambda y: y.float())
    assert kernel.dtype == torch.float64
    torch.testing.assert_close(kernel, tp.entk(model, x), rtol=1e-6, atol=1e-6)


def test_bfloat16_model_gives_float32():
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).bfloat16()
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    kernel = tp.entk(model, x)
    assert kernel.dtype == torch.float32
    truth = tp.entk(model.double(), x.double())
    assert float((kernel - truth).norm() / truth.norm()) < 0.02


@pytest.mark.parametrize("name", ["gpt_tied", "wide_readout_with_bias", "wide_readout_last_position"])
def test_wide_readouts_are_cut_off(name):
    model, inputs, _ = MODEL_CASES[name]()
    _, info = tp.entk(model, inputs, output="trace", return_info=True)
    assert "structured" in info.methods.values()
    assert info.plan.task.classes < model(inputs).shape[1]


@pytest.mark.parametrize(
    "name",
    [
        "wide_readout_averaged",
        "wide_readout_beside_a_shortcut",
        "wide_readout_beside_a_table",
        "tied_readout_used_elsewhere",
    ],
)
def test_other_wide_readouts_are_not(name):
    model, inputs, _ = MODEL_CASES[name]()
    _, info = tp.entk(model, inputs, output="trace", return_info=True)
    assert "structured" not in info.methods.values()


@pytest.mark.parametrize("name", ["resnet20", "gpt_tied", "routed_experts"])
@pytest.mark.parametrize("output", ["full", "trace", "diagonal", "sum"])
def test_verify_accepts_the_kernel(name, output):
    model, inputs, options = MODEL_CASES[name]()
    tp.entk(model, inputs, inputs[:2], output=output, verify=3, **options)
    tp.entk(model, inputs, output=output, verify=2, per_parameter=True, **options)


def test_verify_refuses_a_wrong_rule(monkeypatch):
    model, inputs, _ = MODEL_CASES["mlp"]()
    right = rules.RULES["AddmmBackward0"]
    monkeypatch.setitem(rules.RULES, "AddmmBackward0", lambda use: right(replace(use, cotangents={0: use.g * 1.001})))
    with pytest.raises(VerificationError):
        tp.entk(model, inputs, verify=8)


def test_bad_verify():
    model, inputs, _ = MODEL_CASES["mlp"]()
    with pytest.raises(InputError, match="verify=-1"):
        tp.entk(model, inputs, verify=-1)


def test_biases_ride_with_factored_weights():
    model, inputs, _ = MODEL_CASES["mlp"]()
    whole, info = tp.entk(model, inputs, return_info=True)
    biases = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    assert {info.methods[b] for b in biases} == {f"with {b.removesuffix('bias')}weight" for b in biases}
    parts, alone = tp.entk(model, inputs, per_parameter=True, return_info=True)
    assert not any(alone.methods[b].startswith("with") for b in biases)
    torch.testing.assert_close(sum(parts.values()), whole)


def test_tiles_of_one_of_two_samples():
    torch.manual_seed(0)
    model, inputs = torch.nn.Linear(3, 2).double(), torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(tp.entk(model, inputs, tile=1), tp.ntk.naive_entk(model, inputs))
