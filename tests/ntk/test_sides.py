"""Cross kernels whose two sides run other programs: torch takes other views where memory lies in another order."""

import pytest
import torch
from torch import nn

import twophase_fast as tp
from tests.ntk.helpers import error, x
from twophase_fast.ntk import computation, naive_entk
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import make_batch

OUTPUTS = ("full", "trace", "diagonal", "sum")


def model(outputs):
    """A layer at each of three positions, and one for all of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(11, 8), nn.Tanh(), nn.Flatten(), nn.Linear(24, outputs)).double()


def two_sides():
    """Samples [N, 3, 11] in two orders in memory: one layer is an `addmm`, or a product and a sum."""
    return x(3, 11, 3).transpose(1, 2), x(2, 3, 11, seed=1)


def names_of(network, samples):
    return (
        Function(network, None, dict(network.named_parameters()))
        .graph(make_batch(samples, None, name="x", device=torch.device("cpu")))
        .names
    )


def test_the_sides_run_other_programs():
    first, second = (names_of(model(4), side) for side in two_sides())
    assert len(first) != len(second)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("turned", [False, True])
def test_a_wide_readout(output, turned):
    left, right = reversed(two_sides()) if turned else two_sides()
    network = model(30)
    truth = naive_entk(network, left, right, output=output)
    assert error(tp.entk(network, left, right, output=output), truth) < 1e-12


@pytest.mark.parametrize("same", [False, True])
def test_pull_backs_go_on_from_a_cut_only_in_one_program(same, monkeypatch):
    seen, make_plan = [], computation.make_plan
    left, right = two_sides()

    def spy(profiles, task, program, **options):
        seen.append(program.cuts)
        return make_plan(profiles, task, program, **options)

    monkeypatch.setattr(computation, "make_plan", spy)
    tp.entk(model(4), right if same else left, right, output="diagonal")
    assert bool(seen[0]) == same
