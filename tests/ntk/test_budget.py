"""Budgets: the plan follows them, the result does not change, and an impossible one says what would work."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import twophase_fast as tp
from twophase_fast import zoo
from twophase_fast._model_cases import MODEL_CASES
from twophase_fast._pages import resident_bytes, room
from twophase_fast._types import InputError
from twophase_fast.ntk import capture, computation, planner, sizer
from twophase_fast.ntk.calibration import DEFAULT
from twophase_fast.ntk.memory import parse_bytes


def images(n, size=16):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def resnet():
    return zoo.resnet20(width=4, outputs=6).double().eval()


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def rows(n, seed=0):
    return torch.randn(n, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smallest(model, x, x2=None, **options):
    """Return the smallest budget that works, as the error says it."""
    with pytest.raises(InputError, match="too small") as caught:
        tp.plan(model, x, x2, memory_budget=1, **options)
    return int(re.search(r"works is (\d+) bytes", str(caught.value))[1])


def tight(model, x, x2=None, **options):
    """Return a budget between the smallest and what is taken without one, which may be hardly more."""
    least, most = smallest(model, x, x2, **options), tp.plan(model, x, x2, **options).peak_bytes
    return least + max(most - least, 0) // 3


def assert_same(kernel, expected):
    torch.testing.assert_close(kernel, expected, rtol=1e-11, atol=1e-11 * float(expected.abs().max()))


def parts(plan):
    """Return into how many parts a computation is cut."""
    return len(plan.groups), len(plan.chunks), plan.blocks, plan.tile


@pytest.fixture(autouse=True)
def same_rates(monkeypatch):
    """Let plans depend on nothing that was measured on a busy machine."""
    monkeypatch.setattr(computation, "known_rates", lambda _: DEFAULT)


@pytest.fixture
def no_overhead(monkeypatch):
    """Let tiny models feel a budget: count only what grows with them."""
    monkeypatch.setattr(sizer, "_CPU", replace(sizer._CPU, library_bytes=0))


def test_long_kernels_take_a_lower_peak_where_it_costs_hardly_any_time(no_overhead, monkeypatch):
    model, x = resnet(), images(16)
    monkeypatch.setattr(planner, "_LONG", 1e9)  # seconds: no kernel is long
    fast, fastest = tp.entk(model, x, return_info=True)
    monkeypatch.setattr(planner, "_LONG", 0.0)
    monkeypatch.setattr(planner, "_PATIENCE", 10.0)
    frugal, info = tp.entk(model, x, return_info=True)
    assert info.plan.peak_bytes < fastest.plan.peak_bytes
    assert_same(frugal, fast)
    monkeypatch.setattr(planner, "_PATIENCE", -1.0)  # no plan is fast enough
    assert tp.entk(model, x, return_info=True)[1].plan.peak_bytes == fastest.plan.peak_bytes


@pytest.mark.parametrize("output", ["full", "trace", "diagonal", "sum"])
def test_small_budgets_change_the_plan_and_not_the_result(no_overhead, output):
    model, x = resnet(), images(4)
    whole, free = tp.entk(model, x, output=output, return_info=True)
    assert len(free.plan.groups) == len(free.plan.chunks) == free.plan.blocks == 1
    budget = tight(model, x, output=output)
    kernel, info = tp.entk(model, x, output=output, memory_budget=budget, return_info=True)
    assert info.plan.peak_bytes <= budget
    assert parts(info.plan) != parts(free.plan)
    assert_same(kernel, whole)


@pytest.mark.parametrize("name", sorted(MODEL_CASES))
def test_every_model_within_a_tight_budget(no_overhead, name):
    model, inputs, options = MODEL_CASES[name]()
    whole, info = tp.entk(model, inputs, return_info=True, **options)
    if not info.plan.rows:
        pytest.skip("the program depends on the data: it cannot be planned")
    budget = tight(model, inputs, **options)
    assert_same(tp.entk(model, inputs, memory_budget=budget, **options), whole)


def test_groups_go_on_from_cuts(no_overhead, monkeypatch):
    model, x = zoo.mlp(7, (9,) * 6, 3).double(), rows(8)
    budget = tight(model, x)
    starts = []
    monkeypatch.setattr(capture.CutSeeds, "cotangents", _noting(capture.CutSeeds.cotangents, starts))
    kernel, info = tp.entk(model, x, memory_budget=budget, return_info=True)
    groups = info.plan.groups
    assert len(groups) > 2
    assert all(group.start is not None for group in groups[1:])
    assert sum(group.share for group in groups) < 1.5, "the groups pull back hardly more than one whole pull-back"
    assert starts
    assert_same(kernel, tp.entk(model, x))


def _noting(cotangents, starts):
    def noting(self, ks):
        starts.append(self.cut.node)
        return cotangents(self, ks)

    return noting


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_smallest_budget_cuts_the_kernel_into_blocks(no_overhead, cross, output):
    model, x, other = small_net(), rows(5), rows(4, seed=1) if cross else None
    budget = smallest(model, x, other, output=output)
    kernel, info = tp.entk(model, x, other, output=output, memory_budget=budget, return_info=True)
    assert info.plan.side == 1
    assert info.plan.blocks == (20 if cross else 15)
    assert_same(kernel, tp.entk(model, x, other, output=output))


def test_blocks_of_every_parameter(no_overhead):
    model, x = small_net(), rows(5)
    budget = smallest(model, x, per_parameter=True)
    kernels = tp.entk(model, x, memory_budget=budget, per_parameter=True)
    for name, whole in tp.entk(model, x, per_parameter=True).items():
        assert_same(kernels[name], whole)


@pytest.mark.parametrize("name", ["vit", "gpt_tied", "vgg16_narrow", "weight_norm"])
def test_tight_budget_works_on_a_cross_kernel(no_overhead, name):
    model, inputs, options = MODEL_CASES[name]()
    other = inputs[:3]
    budget = tight(model, inputs, other, **options)
    assert_same(
        tp.entk(model, inputs, other, memory_budget=budget, **options), tp.entk(model, inputs, other, **options)
    )


def test_slices_of_channels_agree(no_overhead):
    model, x = zoo.vgg16(width=0.25, outputs=4).double().eval(), images(3, 32)
    kernel, info = tp.entk(model, x, memory_budget=tight(model, x), return_info=True)
    assert any(r.method == "materialise" and r.stored_bytes > 0 for r in info.plan.rows)
    assert_same(kernel, tp.entk(model, x))


def test_memory_of_large_arrays_returns():
    before = resident_bytes()
    array = room((64, 2**18), torch.float32, torch.device("cpu")).fill_(1)
    assert resident_bytes() - before > 50 * 2**20
    del array
    assert resident_bytes() - before < 30 * 2**20


def test_plan_prints_every_parameter():
    model = resnet()
    plan = tp.plan(model, images(5), memory_budget="64 MB")
    text = str(plan)
    for name, _ in model.named_parameters():
        assert name in text
    assert "predicted peak" in text
    assert plan.total_flops == sum(row.flops for row in plan.rows) > 0
    assert plan.peak_bytes <= 64_000_000
    assert "T positions, d inputs, p outputs" in text


def test_info_prints_what_was_done():
    _, info = tp.entk(resnet(), images(5), output="trace", return_info=True)
    lines = str(info).splitlines()
    assert lines[:-1] == str(info.plan).splitlines()
    assert lines[-1].startswith("took probe ")
    assert lines[-1].endswith(" in precision 'highest'")


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


@pytest.mark.parametrize("output", ["full", "trace"])
def test_the_search_skips_no_better_plan(output, monkeypatch):
    asked = {}

    def remember(profiles, task, program, **options):
        asked.update(sizes=(profiles, task, program), options=options)
        return planner.make_plan(profiles, task, program, **options)

    monkeypatch.setattr(computation, "make_plan", remember)
    whole = tp.plan(resnet(), images(6), output=output).peak_bytes
    options = {name: asked["options"][name] for name in ("batched", "rates", "carried")}
    least = sizer.Sizer(*asked["sizes"], whole, **options).smallest(None)
    grouped = set()
    for share in (-0.1, 0, 0.1, 0.3, 0.6, 1.2):
        search = sizer.Sizer(*asked["sizes"], int(least + share * (whole - least)), **options)
        ways = [(shape, search.groups(shape)) for shape in search._shapes(None)]
        plans = [(search.seconds(groups, shape), k) for k, (shape, groups) in enumerate(ways) if groups is not None]
        found, seconds = search.best(None)
        if not plans:
            assert found is None
            continue
        fastest, k = min(plans)
        grouped.add(len(ways[k][1]))
        assert (seconds, found.groups) == (fastest, ways[k][1])
        assert (found.tile, found.chunk, found.at_once) == (ways[k][0].tile, ways[k][0].chunk, ways[k][0].at_once)
        assert search.best(None, limit=fastest * 0.999)[0] is None
    assert max(grouped) > 1
