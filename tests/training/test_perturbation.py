import copy
import math

import pytest
import torch
from torch import nn

from twophase_fast._types import InputError
from twophase_fast.training import Perturbation, generator_for, perturb


def flat(model):
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def apply(model, kind, norm, seed=0, **kwargs):
    before = flat(model)
    realised = perturb(model, Perturbation(kind, norm), generator_for(seed), **kwargs)
    return realised, flat(model) - before, before


@pytest.mark.parametrize("norm", [1e-1, 1e-3])
def test_gaussian_has_the_total_norm_it_was_given(model, norm):
    realised, change, _ = apply(model, "gaussian", norm)
    assert realised.requested_norm == norm
    assert realised.realised_norm == pytest.approx(change.norm().item(), rel=1e-12)
    assert realised.realised_norm == pytest.approx(norm, rel=1e-3)
    assert realised.changed_entries == int((change != 0).sum())
    assert realised.total_entries == change.numel()


def test_relative_norm_is_relative_to_the_weights(model):
    realised, change, before = apply(model, "gaussian_relative", 1e-3)
    assert realised.requested_norm == pytest.approx(1e-3 * before.norm().item(), rel=1e-12)
    assert change.norm().item() == pytest.approx(realised.requested_norm, rel=1e-3)


def test_init_scaled_noise_has_each_tensors_spread_at_initialisation(model):
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # training moved on: the scale is still that of initialisation
    length = math.sqrt(sum(float(p.double().square().sum()) for p in initial.values()))
    realised, change, _ = apply(model, "gaussian_init", 0.1, initial=initial)
    assert realised.requested_norm == pytest.approx(0.1 * length, rel=1e-12)
    assert realised.realised_norm == pytest.approx(0.1 * length, rel=1e-3)
    pieces = dict(zip(initial, change.split([p.numel() for p in initial.values()])))
    assert pieces["norm.weight"].norm() == 0  # constant at initialisation: no spread, no noise
    ratio = {n: (pieces[n].square().mean().sqrt() / initial[n].std()).item() for n in ("conv.weight", "head.weight")}
    assert ratio["conv.weight"] == pytest.approx(ratio["head.weight"], rel=0.4)


def test_gradient_direction_raises_the_loss_as_much_as_any_step_of_that_length(model, build):
    loop = build(model)
    gradient = loop.gradient(0)
    realised, change, _ = apply(model, "gradient", 1e-2, gradient=lambda: gradient)
    g = torch.cat([t.double().flatten() for t in gradient])
    assert realised.realised_norm == pytest.approx(1e-2, rel=1e-3)
    assert torch.dot(change, g) / (change.norm() * g.norm()) == pytest.approx(1, abs=1e-6)


def test_a_single_weight_moves_alone(model):
    realised, change, _ = apply(model, "single_weight", 0.25)
    assert realised.changed_entries == 1
    assert change.abs().max().item() == pytest.approx(0.25, rel=1e-6)
    moved = {int(apply(copy.deepcopy(model), "single_weight", 0.25, seed=s)[1].abs().argmax()) for s in range(20)}
    assert len(moved) > 10


def test_swallowed_perturbations_are_reported():
    model = nn.Linear(100, 100, bias=False)
    nn.init.ones_(model.weight)
    realised, change, _ = apply(model, "gaussian", 1e-6)  # about 1e-8 an entry, far below float32's 6e-8
    assert realised.requested_norm == 1e-6
    assert realised.changed_entries == int((change != 0).sum()) < 100
    assert realised.realised_norm == pytest.approx(change.norm().item(), rel=1e-9)
    assert realised.realised_norm < 0.9e-6 or realised.changed_entries > 0


@pytest.mark.parametrize("kind", ["gaussian", "gaussian_relative", "gaussian_init", "gradient", "single_weight"])
def test_norm_zero_is_the_control_and_changes_no_bit(model, kind):
    realised, change, _ = apply(model, kind, 0.0)
    assert (realised.requested_norm, realised.realised_norm, realised.changed_entries) == (0.0, 0.0, 0)
    assert change.abs().max() == 0


def test_the_draw_is_the_generators_alone(model):
    changes = []
    for seed, disturbance in ((2, 0), (2, 5), (3, 0)):
        torch.rand(disturbance)
        changes.append(apply(copy.deepcopy(model), "gaussian", 1.0, seed=seed)[1])
    assert torch.equal(changes[0], changes[1])
    assert not torch.equal(changes[0], changes[2])


def test_frozen_and_tied_weights():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    frozen = model[1].bias.clone()
    realised = perturb(model, Perturbation("gaussian", 1.0), generator_for(0))
    assert realised.total_entries == 9 + 3
    assert realised.realised_norm == pytest.approx(1, rel=1e-5)
    assert torch.equal(frozen, model[1].bias)


def test_what_is_missing_or_wrong_is_named(model):
    with pytest.raises(InputError, match="unknown perturbation kind 'noise'; known: gaussian"):
        Perturbation("noise", 1.0)
    for norm in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="must be finite and not negative"):
            Perturbation("gaussian", norm)
    for kind, word in (("gaussian_init", "initial="), ("gradient", "gradient=")):
        with pytest.raises(InputError, match=word):
            perturb(model, Perturbation(kind, 1.0), generator_for(0))
    with pytest.raises(InputError, match="zero everywhere"):
        perturb(
            model,
            Perturbation("gradient", 1.0),
            generator_for(0),
            gradient=lambda: [torch.zeros_like(p) for p in model.parameters()],
        )
    with pytest.raises(InputError, match="nothing to perturb"):
        perturb(nn.Flatten(), Perturbation("gaussian", 1.0), generator_for(0))
