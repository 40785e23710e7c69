"""Random signs: functions of their key, fair and uncorrelated."""

import pytest
import torch

from twophase_fast.ntk.signs import random_signs

LIKE = torch.empty(0, dtype=torch.float64)


def test_only_signs():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        signs = random_signs((0, "a"), 3, 5, like=torch.empty(0, dtype=dtype))
        assert signs.shape == (3, 5)
        assert signs.dtype == dtype
        assert bool((signs.abs() == 1).all())


@pytest.mark.parametrize("other", [(1, "a", 0), (0, "b", 0), (0, "a", 1)])
def test_a_function_of_the_key(other):
    signs = random_signs((0, "a", 0), 20, 30, like=LIKE)
    assert torch.equal(signs, random_signs((0, "a", 0), 20, 30, like=LIKE))
    agreement = float((signs == random_signs(other, 20, 30, like=LIKE)).double().mean())
    assert abs(agreement - 0.5) < 4 * 0.5 / 600**0.5


@pytest.mark.parametrize("columns", [1, 7, 63, 64, 65])
def test_fewer_rows_are_a_prefix(columns):
    more = random_signs((3,), 9, columns, like=LIKE)
    assert torch.equal(more[:4], random_signs((3,), 4, columns, like=LIKE))


def test_fair_and_uncorrelated():
    signs = random_signs((5, "fair"), 4000, 64, like=LIKE)
    bound = 5 / 4000**0.5
    assert float(signs.mean(0).abs().max()) < bound
    gram = signs.T @ signs / 4000 - torch.eye(64, dtype=torch.float64)
    assert float(gram.abs().max()) < bound


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    random_signs((0,), 10, 10, like=LIKE)
    assert torch.equal(state, torch.get_rng_state())
