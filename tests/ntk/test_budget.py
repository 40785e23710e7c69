"""Budgets: the plan follows them, the result does not change, and an impossible one says what would work."""

import re

import pytest
import torch

import twophase_fast as tp
from twophase_fast import zoo
from twophase_fast._model_cases import MODEL_CASES
from twophase_fast._types import InputError
from twophase_fast.ntk.memory import parse_bytes


def images(n, size=16):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def resnet():
    return zoo.resnet20(width=4, outputs=6).double().eval()


@pytest.mark.parametrize("output", ["full", "trace", "diagonal", "sum"])
def test_small_budgets_change_the_plan_and_not_the_result(output):
    model, x = resnet(), images(6)
    whole, free = tp.entk(model, x, output=output, return_info=True)
    assert len(free.plan.groups) == len(free.plan.chunks) == 1
    least = _smallest(model, x, output)
    tight, info = tp.entk(model, x, output=output, memory_budget=least, return_info=True)
    assert info.plan.peak_bytes <= least
    assert len(info.plan.groups) * len(info.plan.chunks) > 1
    torch.testing.assert_close(tight, whole, rtol=1e-11, atol=1e-11 * float(whole.abs().max()))


def _smallest(model, x, output):
    with pytest.raises(InputError, match="too small") as caught:
        tp.plan(model, x, output=output, memory_budget=1)
    return int(re.search(r"works is (\d+) bytes", str(caught.value))[1])


@pytest.mark.parametrize("name", ["vit", "gpt_tied", "vgg16_narrow", "weight_norm"])
def test_smallest_budget_works_on_a_cross_kernel(name):
    model, inputs, options = MODEL_CASES[name]()
    other = inputs[:3]
    with pytest.raises(InputError) as caught:
        tp.entk(model, inputs, other, memory_budget=1000, **options)
    least = int(re.search(r"works is (\d+) bytes", str(caught.value))[1])
    whole = tp.entk(model, inputs, other, **options)
    tight = tp.entk(model, inputs, other, memory_budget=least, **options)
    torch.testing.assert_close(tight, whole, rtol=1e-11, atol=1e-11 * float(whole.abs().max()))


def test_slices_of_channels_agree():
    model, x = zoo.vgg16(width=0.25, outputs=4).double().eval(), images(3, 32)
    whole = tp.entk(model, x)
    tight, info = tp.entk(model, x, memory_budget=_smallest(model, x, "full"), return_info=True)
    assert any(r.method == "materialise" and r.stored_bytes > 0 for r in info.plan.rows)
    torch.testing.assert_close(tight, whole, rtol=1e-11, atol=1e-11 * float(whole.abs().max()))


def test_plan_prints_every_parameter():
    model = resnet()
    plan = tp.plan(model, images(5), memory_budget="64 MB")
    text = str(plan)
    for name, _ in model.named_parameters():
        assert name in text
    assert "predicted peak" in text
    assert plan.total_flops == sum(row.flops for row in plan.rows) > 0
    assert plan.peak_bytes <= 64_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), (1000, 1000), ("250 MB", 250_000_000), ("1.5GiB", 1_610_612_736), ("2kib", 2048), ("7 b", 7)],
)
def test_amounts(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("bad", [0, -5, "much", "1.2.3 MB", "MB", "5 parsecs", ""])
def test_bad_amounts(bad):
    with pytest.raises(InputError, match="memory_budget"):
        tp.entk(resnet(), images(2), memory_budget=bad)


def test_a_budget_that_cannot_be_followed_is_said():
    model, inputs, _ = MODEL_CASES["routed_experts"]()
    with pytest.warns(UserWarning, match="memory_budget was not followed"):
        tp.entk(model, inputs, memory_budget="1 GB")


def test_a_budget_that_is_followed_is_quiet(recwarn):
    tp.entk(resnet(), images(3), memory_budget="1 GB")
    assert not [w for w in recwarn if "memory_budget" in str(w.message)]
