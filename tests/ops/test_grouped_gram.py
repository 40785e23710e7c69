"""What `grouped_gram_` refuses, and that it is the sum of `gram_`."""

import pytest
import torch

from twophase_fast import ops
from twophase_fast._types import InputError

X = [torch.ones(3, 4), torch.ones(3, 2)]


@pytest.mark.parametrize(
    ("xs", "ys", "out", "message"),
    [
        ([], None, torch.zeros(3, 3), "xs holds 0 segments; expected at least one"),
        (X, X[:1], torch.zeros(3, 3), "ys holds 1 segments; expected 2"),
        ([X[0], torch.ones(2, 2)], None, torch.zeros(3, 3), r"xs\[1\] has shape \(2, 2\); expected \(3, 2\)"),
        (X, [torch.ones(5, 4), torch.ones(5, 3)], torch.zeros(3, 5), r"ys\[1\] has shape \(5, 3\); expected \(5, 2\)"),
        ([X[0], X[1].double()], None, torch.zeros(3, 3), r"xs\[1\] is torch.float64 but xs\[0\] is torch.float32"),
        ([torch.ones(3)], None, torch.zeros(3, 3), r"xs\[0\] has shape \(3,\); expected \[N, P\]"),
        (X, None, torch.zeros(3, 4), r"out has shape \(3, 4\); expected \(3, 3\)"),
        (X, None, torch.zeros(3, 3, dtype=torch.float64), "out is torch.float64 but a Gram block of torch.float32"),
        (X, None, torch.zeros(3, 1).expand(3, 3), "its elements share memory"),
    ],
)
def test_refusals(xs, ys, out, message):
    with pytest.raises(InputError, match=message):
        ops.grouped_gram_(out, xs, ys)


def test_it_is_the_sum_over_segments():
    generator = torch.Generator().manual_seed(0)
    xs, ys = ([torch.randn(rows, p, generator=generator) for p in (7, 40)] for rows in (3, 5))
    out = torch.ones(3, 5)
    assert ops.grouped_gram_(out, xs, ys) is out
    torch.testing.assert_close(out, 1 + sum(x @ y.T for x, y in zip(xs, ys)))
