"""Models with complex numbers inside: on the way they do no harm, at a parameter they are refused by name."""

import pytest
import torch
from torch import nn

import twophase_fast as tp
from tests.ntk.helpers import error, x
from twophase_fast._model_cases import Apply
from twophase_fast._types import UnsupportedModelError
from twophase_fast.ntk import naive_entk


def layer():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(4, 4).double()


@pytest.mark.parametrize("tile", [1, 2, 3])
def test_a_spectrum_on_the_way(tile):
    model = Apply(lambda s, v: torch.fft.rfft(s.a(v)).abs(), a=layer())
    assert error(tp.entk(model, x(3, 4), tile=tile), naive_entk(model, x(3, 4))) < 1e-12


def test_a_complex_weight_is_refused():
    weight = nn.Parameter(x(3, 2))
    model = Apply(lambda s, v: torch.fft.irfft(torch.fft.rfft(v) * torch.view_as_complex(s.w), n=4), w=weight)
    with pytest.raises(UnsupportedModelError, match="complex"):
        tp.entk(model, x(3, 4))
