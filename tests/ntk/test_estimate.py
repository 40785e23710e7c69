"""`entk_estimate`: unbiased, with error bars that hold, reproducible, and refused where no error bar is possible."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

import twophase_fast as tp
from tests.ntk.helpers import x
from twophase_fast._model_cases import MODEL_CASES
from twophase_fast._types import InputError, UnsupportedModelError
from twophase_fast.ntk import naive_entk


def _seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().double()


def _mlp():
    return _seeded(lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 8))), x(6, 6)


def _cnn():
    def build():
        return nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Conv2d(6, 6, 3, stride=2), nn.Flatten(), nn.Linear(24, 3)
        )

    return _seeded(build), x(5, 2, 7, 7)


WAYS = {
    "output probes": (_mlp, {"probes": 32}),
    "output probes, cross": (_mlp, {"probes": 32, "cross": True}),
    "projections, full": (_cnn, {"output": "full", "sketch_dim": 64}),
    "projections, trace": (_cnn, {"output": "trace", "sketch_dim": 64, "cross": True}),
    "projections, diagonal": (_cnn, {"output": "diagonal", "sketch_dim": 77}),
    "projections, sum": (_cnn, {"output": "sum", "sketch_dim": 64}),
}


def _repeat(way, repetitions):
    """Return (truth, estimates [R, ...], standard errors [R, ...])."""
    build, options = WAYS[way]
    options = dict(options)
    model, inputs = build()
    others = inputs[:3].flip(1) if options.pop("cross", False) else None
    truth = naive_entk(model, inputs, others, output=options.get("output", "trace"))
    estimates = [tp.entk_estimate(model, inputs, others, seed=seed, **options) for seed in range(repetitions)]
    return truth, torch.stack([e.kernel for e in estimates]), torch.stack([e.stderr for e in estimates])


def _check_error_bars(way, repetitions, tolerance):
    truth, kernels, stderrs = _repeat(way, repetitions)
    moving = stderrs[0] > 0
    assert float(moving.double().mean()) > 0.9
    typical = stderrs.square().mean(0).sqrt()
    close = (kernels.mean(0) - truth).abs() <= 3 * typical / math.sqrt(repetitions)
    assert float(close[moving].double().mean()) >= 0.99
    inside = ((kernels - truth).abs() <= stderrs)[:, moving]
    assert abs(float(inside.double().mean()) - 0.68) <= tolerance


@pytest.mark.parametrize("way", ["output probes", "projections, full"])
def test_error_bars_hold(way):
    _check_error_bars(way, 50, 0.08)


@pytest.mark.full
@pytest.mark.parametrize("way", WAYS)
def test_error_bars_hold_over_200_seeds(way):
    _check_error_bars(way, 200, 0.05)


def test_standard_error_of_output_probes_follows_the_formula():
    truth, _, stderrs = _repeat("output probes", 40)
    model, inputs = _mlp()
    full = naive_entk(model, inputs)
    off = full - torch.diag_embed(full.diagonal(dim1=2, dim2=3))
    variance = (off * (off + off.transpose(2, 3))).sum((2, 3)) / 32
    torch.testing.assert_close(stderrs.square().mean(0), variance, rtol=0.25, atol=0.02 * float(variance.max()))
    assert truth.shape == variance.shape


@pytest.mark.parametrize("options", [{}, {"output": "full", "sketch_dim": 16}])
def test_reproducible_from_the_seed(options):
    model, inputs = _cnn()
    one, two = (tp.entk_estimate(model, inputs, seed=3, **options) for _ in range(2))
    assert torch.equal(one.kernel, two.kernel)
    assert torch.equal(one.stderr, two.stderr)
    assert not torch.equal(one.kernel, tp.entk_estimate(model, inputs, seed=4, **options).kernel)


@pytest.mark.parametrize("options", [{}, {"output": "full", "sketch_dim": 16}, {"sketch_dim": 16}])
def test_the_memory_budget_changes_rounding_only(options):
    model, inputs = _cnn()
    plenty = tp.entk_estimate(model, inputs, **options)
    little = tp.entk_estimate(model, inputs, memory_budget="56 MB", **options)
    torch.testing.assert_close(little.kernel, plenty.kernel, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(little.stderr, plenty.stderr, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"output": "full", "sketch_dim": 16}])
def test_user_generators_are_left_alone(options):
    model, inputs = _mlp()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    tp.entk_estimate(model, inputs, **options)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()


@pytest.mark.parametrize(
    "name", ["resnet20", "vit", "gpt_tied", "lstm", "routed_experts", "weight_norm", "embedding_bag"]
)
@pytest.mark.parametrize("output", ["full", "trace", "diagonal", "sum"])
def test_projections_of_every_kind_of_model(name, output):
    model, inputs, options = MODEL_CASES[name]()
    truth = tp.entk(model, inputs, output=output, **options)
    estimate = tp.entk_estimate(model, inputs, output=output, sketch_dim=48, **options)
    assert estimate.kernel.shape == estimate.stderr.shape == truth.shape
    scale = estimate.stderr + 1e-9 * truth.abs().max()
    assert float(((estimate.kernel - truth) / scale).abs().max()) < 8


def test_projections_are_symmetric_to_the_bit():
    model, inputs = _cnn()
    kernel = tp.entk_estimate(model, inputs, output="full", sketch_dim=16).kernel
    assert torch.equal(kernel, kernel.permute(1, 0, 3, 2))


def test_layers_with_one_position_are_exact():
    model, inputs = _mlp()
    estimate = tp.entk_estimate(model, inputs, output="full", sketch_dim=16)
    assert estimate.exact == tuple(name for name, _ in model.named_parameters())
    torch.testing.assert_close(estimate.kernel, naive_entk(model, inputs))
    assert not bool(estimate.stderr.any())


def test_small_parameters_are_exact_beside_a_sketch():
    model, inputs = _cnn()
    estimate = tp.entk_estimate(model, inputs, output="full", sketch_dim=64)
    assert estimate.exact == ("0.bias", "2.bias", "4.weight", "4.bias")
    assert estimate.probes == 32


def test_parameters_without_a_use_beside_a_sketch():
    model, inputs = _cnn()
    model[0].spare = nn.Parameter(x(3, 3))
    estimate = tp.entk_estimate(model, inputs, output="full", sketch_dim=8, params=["0.weight", "0.spare"])
    expected = tp.entk_estimate(model, inputs, output="full", sketch_dim=8, params="0.weight")
    assert estimate.exact == ()
    assert torch.equal(estimate.kernel, expected.kernel)


def test_one_output_needs_no_luck():
    model, inputs = _mlp()
    estimate = tp.entk_estimate(model, inputs, output_fn=lambda y: y[:, 0], probes=2)
    torch.testing.assert_close(estimate.kernel, naive_entk(model, inputs, output="trace", output_fn=lambda y: y[:, :1]))
    assert float(estimate.stderr.max()) < 1e-12


def test_float32_in_float32_out():
    model, inputs = _cnn()
    for options in ({}, {"sketch_dim": 16}):
        estimate = tp.entk_estimate(model.float(), inputs.float(), **options)
        assert estimate.kernel.dtype == estimate.stderr.dtype == torch.float32


def test_targets_and_selected_parameters():
    model, inputs = _mlp()
    options = {"output_fn": lambda y, t: y * t[:, None], "targets": torch.arange(6.0), "params": "*weight"}
    estimate = tp.entk_estimate(model, inputs, sketch_dim=4, **options)
    assert set(estimate.exact) <= {"0.weight", "2.weight"}
    truth = naive_entk(model, inputs, output="trace", **options)
    assert float((estimate.kernel - truth).norm() / truth.norm()) < 1


REFUSED = {
    "one probe": ({"probes": 1}, "at least 2.*no error bar"),
    "no probe": ({"probes": 0}, "at least 2"),
    "half a probe": ({"probes": 2.5}, "probes=2.5"),
    "one direction": ({"sketch_dim": 1}, "sketch_dim=1.*no error bar"),
    "one block": ({"sketch_dim": 8, "probes": 1}, "no error bar"),
    "more blocks than directions": ({"sketch_dim": 4, "probes": 8}, "probes=8 blocks.*sketch_dim=4"),
    "full by output probes": ({"output": "full"}, "needs sketch_dim"),
    "sum by output probes": ({"output": "sum"}, "exact with a single pull-back"),
    "unknown output": ({"output": "matrix"}, "output='matrix'"),
    "unknown precision": ({"precision": "low"}, "precision='low'"),
    "seed": ({"seed": 0.5}, "seed=0.5"),
    "targets2": ({"targets2": torch.zeros(4)}, "targets2"),
    "budget": ({"memory_budget": "1 kB"}, "memory_budget.*smallest"),
    "budget of a sketch": ({"memory_budget": "1 kB", "sketch_dim": 8}, "memory_budget.*smallest"),
    "NaN": ({"x1": torch.full((2, 2, 7, 7), float("nan"))}, "NaN or infinite"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    options, message = REFUSED[name]
    model, inputs = _cnn()
    arguments = {"x1": inputs, **options}
    with pytest.raises(InputError, match=message):
        tp.entk_estimate(model, **arguments)


def test_refuses_models_that_mix_samples():
    with pytest.raises(UnsupportedModelError, match="training mode"):
        tp.entk_estimate(nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)), x(4, 6).float())


@pytest.mark.parametrize("options", [{}, {"sketch_dim": 8}])
def test_refuses_infinite_jacobians(options):
    model = _seeded(lambda: nn.Linear(6, 3, bias=False))
    with pytest.raises(UnsupportedModelError, match="NaN or infinite"):
        tp.entk_estimate(model, torch.zeros(3, 6, dtype=torch.float64), output_fn=torch.sqrt, **options)
