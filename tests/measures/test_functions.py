"""Disagreement of two classifiers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from twophase_fast._types import InputError
from twophase_fast.measures import disagreement_rate


def classifier(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


X = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(50) % 3


def test_rate_counts_the_points_where_the_argmax_differs():
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    second = torch.tensor([[9.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 5.0]])
    assert disagreement_rate(first, second) == 0.5
    assert disagreement_rate(first, first) == 0.0


def test_every_form_of_data_gives_the_same_rate():
    a, b = classifier(1), classifier(2)
    with torch.no_grad():
        expected = disagreement_rate(a.eval()(X), b.eval()(X))
    assert 0 < expected < 1
    loader = DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True)
    for data in (X, (X, Y), [X[:20], X[20:]], [(X[:20], Y[:20]), (X[20:], Y[20:])], loader):
        assert disagreement_rate(a, b, data, batch_size=16) == pytest.approx(expected)
    assert disagreement_rate(b, a, X) == expected


def test_models_and_random_state_are_left_as_they_were():
    a, b = classifier(1).train(), classifier(2)
    a[1].eval()
    flags = [module.training for module in a.modules()]
    buffers = {name: value.clone() for name, value in a.named_buffers()}
    state = torch.get_rng_state()
    disagreement_rate(a, b, DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True))
    assert [module.training for module in a.modules()] == flags
    assert all(torch.equal(value, buffers[name]) for name, value in a.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_arguments_are_refused_with_the_reason():
    logits = torch.zeros(4, 3)
    for arguments, words in [
        ((logits, logits[:2]), "shapes"),
        ((logits[:, :1], logits[:, :1]), "C >= 2"),
        ((logits / 0, logits), "NaN"),
        ((logits, classifier(0)), "two models"),
        ((classifier(0), classifier(1)), "two models"),
        ((classifier(0), classifier(1), iter([X])), "more than once"),
        ((classifier(0), classifier(1), []), "no test points"),
        ((torch.zeros(0, 3), torch.zeros(0, 3)), "no test points"),
        ((torch.full((1, 2), math.inf), torch.ones(1, 2)), "infinite"),
    ]:
        with pytest.raises(InputError, match=words):
            disagreement_rate(*arguments)
