"""The running mean of independent estimates and its standard error."""

import numpy as np
import torch

from tests.ntk.helpers import x
from twophase_fast.ntk.uncertainty import WeightedMean


def test_equal_weights_give_std_over_root_n():
    values, mean = x(9, 4), WeightedMean()
    for value in values:
        mean.add(value)
    torch.testing.assert_close(mean.mean, values.mean(0))
    torch.testing.assert_close(mean.stderr, values.std(0) / 3)


def test_equal_weights_give_the_jackknife():
    values, mean = x(7, 4), WeightedMean()
    for value in values:
        mean.add(value)
    left_out = (values.sum(0) - values) / 6
    jackknife = (6 / 7 * (left_out - left_out.mean(0)).square().sum(0)).sqrt()
    torch.testing.assert_close(mean.stderr, jackknife)


def test_weights_follow_the_formula():
    values, weights, mean = x(5, 4), torch.tensor([1.0, 2.0, 2.0, 3.0, 1.0], dtype=torch.float64), WeightedMean()
    for value, weight in zip(values, weights.tolist()):
        mean.add(value, weight)
    expected = torch.from_numpy(np.average(values.numpy(), 0, weights.numpy()))
    squares = (weights[:, None] * (values - expected) ** 2).sum(0)
    torch.testing.assert_close(mean.mean, expected)
    torch.testing.assert_close(mean.stderr, (squares / (4 * weights.sum())).sqrt())


def test_a_large_offset_does_not_cancel():
    values, mean = x(50, 4), WeightedMean()
    for value in values:
        mean.add(value + 1e7)
    torch.testing.assert_close(mean.stderr, values.std(0) / 50**0.5, rtol=1e-7, atol=0)


def test_first_value_is_copied():
    value, mean = x(3), WeightedMean()
    before = value.clone()
    mean.add(value)
    mean.add(value + 1)
    assert torch.equal(value, before)
