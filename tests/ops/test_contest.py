"""A contest checks before it times, and gives a rival the arguments its user would."""

from __future__ import annotations

import pytest
import torch

from twophase_fast import ops
from twophase_fast._types import InputError
from twophase_fast.ops import _contest
from twophase_fast.ops._workloads import DEFAULT, SMOKE


def smoke(op: str, dtype: torch.dtype = torch.float32, precision: str = "highest") -> _contest.Contest:
    return _contest.Contest(next(row for row in SMOKE if row.op == op), dtype, precision)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("op", _contest.names())
def test_ours_is_right_and_twice_the_error_allowed_is_not(op, dtype):
    contest = smoke(op, dtype)
    assert contest.check("ours", contest.ours()) <= contest.allowed < 100 * torch.finfo(dtype).eps
    if op == "pair_moments":
        return
    right = contest.ours("reference")()
    *others, last = right if isinstance(right, tuple) else (right,)
    noise = torch.randn(last.shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    wrong = last + 3 * contest.allowed * last.norm() / noise.norm() * noise
    with pytest.raises(_contest.WrongResultError, match="relative error"):
        contest.check("mine", lambda: (*others, wrong) if others else wrong)


def test_nan_shape_and_type_are_wrong():
    contest = smoke("gram")
    right = contest.ours()()
    with pytest.raises(_contest.WrongResultError, match="relative error inf"):
        contest.check("mine", lambda: right.clone().fill_diagonal_(torch.nan))
    with pytest.raises(_contest.WrongResultError, match=r"shape is \(64, 65\), expected \(65, 65\)"):
        contest.check("mine", lambda: right[1:])
    with pytest.raises(_contest.WrongResultError, match="returned a list; expected a Tensor"):
        contest.check("mine", lambda: right.tolist())


def test_parts_of_a_tuple_are_all_wanted():
    contest = smoke("layer_norm_grad")
    right = contest.ours()()
    assert contest.check("mine", lambda: list(right)) <= contest.allowed
    with pytest.raises(_contest.WrongResultError, match="returned a tuple of 2; expected a tuple of 3 Tensors"):
        contest.check("mine", lambda: right[:2])
    with pytest.raises(_contest.WrongResultError, match="returned a Tensor; expected a tuple of 3 Tensors"):
        contest.check("mine", lambda: right[0])


def test_nothing_is_timed_when_one_side_is_wrong():
    contest = smoke("gram")
    calls = []

    def mine() -> torch.Tensor:
        calls.append(1)
        return torch.zeros(65, 65)

    with pytest.raises(_contest.WrongResultError):
        contest.time({"ours": contest.ours(), "mine": mine}, 5)
    assert len(calls) == 1


def test_sides_take_turns():
    order = []
    times = _contest.alternate([lambda: order.append("a"), lambda: order.append("b")], 3)
    assert "".join(order) == "abbaab"
    assert [len(side) for side in times] == [3, 3]


@pytest.mark.parametrize(
    ("op", "positional", "named"),
    [
        ("gram", 1, set()),
        ("factored_gram", 2, set()),
        ("per_sample_grad", 2, set()),
        ("per_sample_conv_grad", 3, {"padding"}),
        ("embedding_gram", 2, set()),
        ("pair_moments", 2, set()),
    ],
)
def test_arguments_are_those_that_differ_from_their_defaults(op, positional, named):
    given, others = _contest.arguments(getattr(ops, op), smoke(op).inputs)
    assert (len(given), set(others)) == (positional, named)


def test_workloads_take_sizes():
    row = _contest.workload("gram", {"n": 3})
    assert row.sizes == {**DEFAULT[0].sizes, "n": 3}
    for op, sizes in (("gram_", {}), ("gram", {"k": 1}), ("gram", {"n": 0}), ("gram", {"m": -1})):
        with pytest.raises(InputError):
            _contest.workload(op, sizes)
