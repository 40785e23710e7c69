from __future__ import annotations

import pytest

from twophase_fast.report.cone_series import headline_spacing
from twophase_fast.report.figures.chaos import ceiling
from twophase_fast.report.findings import findings
from twophase_fast.report.findings.equal_horizon import compare, compare_all
from twophase_fast.report.findings.verdict import fall


def finding(run, effect):
    return next(entry for entry in findings(run) if entry.effect == effect)


@pytest.mark.parametrize(
    ("recipe", "outcome", "words"),
    [
        ({}, "seen", "Chaos effect seen in every one of 3 seeds"),
        ({"chaos": False}, "none", "No effect seen"),
        ({"control_falls": True}, "partly", "but in the low-learning-rate control too"),
        ({"low_lr_seeds": ()}, "seen", "No low-learning-rate control was run"),
        ({"seeds": (4,)}, "seen", "in the one seed run"),
    ],
)
def test_chaos(make_run, recipe, outcome, words):
    found = finding(make_run(**recipe), "Chaos effect")
    assert found.outcome == outcome
    assert words in found.sentence


def test_chaos_numbers_are_those_stored(make_run):
    run = make_run()
    main = compare(run.table("twins"), "main", "dissimilarity")
    assert (main.horizon, main.earliest, main.latest) == (200, 0, 400)
    twins = run.table("twins")
    for seed, value in main.first.items():
        cell = (twins["variant"] == "main") & (twins["seed"] == seed) & (twins["control"] == 0)
        cell &= (twins["spawn_step"] == 0) & (twins["horizon"] == 200)
        assert value == twins["dissimilarity"][cell].item()


def test_comparison_prefers_the_widest_range_then_the_longest_horizon(make_run):
    run = make_run(spawn_steps=(0, 100, 400, 500), horizons=(50, 100, 200, 600))
    main = compare(run.table("twins"), "main", "dissimilarity")
    assert (main.horizon, main.earliest, main.latest) == (100, 0, 500)  # 200 and 600 pass the end of training
    assert [entry.horizon for entry in compare_all(run.table("twins"), "main", "dissimilarity")] == [50, 100, 200]


def test_one_spawn_step_decides_nothing(make_run):
    run = make_run(spawn_steps=(0,))
    assert [entry.effect for entry in findings(run)] == ["Cone effect", "Control twins"]


def test_reversed_order_at_another_horizon_is_named(make_run):
    run = make_run()
    twins = run.table("twins")
    cell = (twins["horizon"] == 50) & (twins["spawn_step"] == 400) & (twins["control"] == 0) & (twins["seed"] == 1)
    twins["dissimilarity"][cell] = 1.0
    found = finding(run, "Chaos effect")
    assert "The order is the opposite" in found.sentence
    assert "h = 50 (" in found.sentence
    assert "in 1 of 3 seeds)" in found.sentence
    assert found.label == "effect seen at h = 200"


@pytest.mark.parametrize(
    ("size", "outcome", "words"),
    [
        (0.0, "none", "in none of 3 seeds: near 0, trunk and twin stay linearly connected"),
        (1.5, "seen", "A barrier that falls with the spawn step is seen in every one of 3 seeds"),
    ],
)
def test_barrier(make_run, size, outcome, words):
    found = finding(make_run(barrier=size), "Loss barrier")
    assert found.outcome == outcome
    assert words in found.sentence


def test_barrier_in_one_seed_is_no_effect(make_run, synthetic):
    run = make_run(barrier=0.0, spawn_steps=(0, 400))
    twins = run.table("twins")
    twins["barrier"][(twins["seed"] == 0) & (twins["spawn_step"] == 0) & (twins["barrier"] >= 0)] = 0.4
    found = finding(run, "Loss barrier")
    assert found.outcome == "none"
    assert "in 1 of 3 seeds." in found.sentence


def test_barrier_that_does_not_fall_is_no_effect(make_run):
    run = make_run(barrier=0.0, spawn_steps=(0, 300))
    twins = run.table("twins")
    twins["barrier"][twins["barrier"] >= 0] = 0.4
    found = finding(run, "Loss barrier")
    assert found.outcome == "none"
    assert "a barrier is there, but it falls in none of 3 seeds" in found.sentence


@pytest.mark.parametrize(("recipe", "outcome"), [({}, "seen"), ({"chaos": False}, "none"), ({"test_size": 20}, "none")])
def test_disagreement_is_held_against_sampling_error(make_run, recipe, outcome):
    config = {"config": {"test_size": recipe.pop("test_size")}} if "test_size" in recipe else {}
    found = finding(make_run(**recipe, **config), "Disagreement")
    assert found.outcome == outcome
    assert ("No effect seen" in found.sentence) == (outcome == "none")


@pytest.mark.parametrize(
    ("recipe", "outcome", "words"),
    [
        ({}, "seen", "Cone effect seen in every one of 3 seeds"),
        ({"cone": False}, "none", "No effect seen"),
        ({"tables": ("kernel_distance",)}, "undecided", "Not decided"),
    ],
)
def test_cone(make_run, recipe, outcome, words):
    found = finding(make_run(**recipe), "Cone effect")
    assert found.outcome == outcome
    assert words in found.sentence


def test_cone_that_the_control_shows_too_is_not_distinguished(make_run):
    run = make_run()
    for name in ("kernel_distance", "cone"):
        table = run.table(name)
        low, source = table["variant"] == "low_lr", (table["variant"] == "main") & (table["seed"] == 0)
        value = "distance" if name == "kernel_distance" else "half_angle_degrees"
        table[value][low] = table[value][source]
    found = finding(run, "Cone effect")
    assert found.outcome == "partly"
    assert "but in the low-learning-rate control too" in found.sentence
    assert found.label == "in the control too"


def test_frozen_kernel_is_no_cone_effect(make_run):
    run = make_run()
    table = run.table("kernel_distance")
    table["distance"][table["step_b"] == 600] = 0.0
    assert finding(run, "Cone effect").outcome == "none"


@pytest.mark.parametrize(("exact", "outcome"), [(True, "pass"), (False, "fail")])
def test_control_twins(make_run, exact, outcome):
    found = finding(make_run(control_exact=exact), "Control twins")
    assert found.outcome == outcome
    assert ("not exactly 0" in found.sentence) == (not exact)


def test_missing_control_twins_are_reported(make_run):
    run = make_run(spawn_steps=(0, 50))
    table = run.table("twins")
    run.tables["twins"] = {name: values[table["control"] == 0] for name, values in table.items()}
    assert finding(run, "Control twins").outcome == "fail"


@pytest.mark.parametrize(
    ("first", "last", "expected"), [(2.0, 1.0, 2.0), (0.0, 0.0, 1.0), (1.0, 0.0, float("inf")), (0.0, 1.0, 0.0)]
)
def test_fall(first, last, expected):
    assert fall(first, last) == expected


def test_dt_of_the_cone_finding_is_the_one_stored_over_the_widest_range(make_run):
    run = make_run(probe_steps=(0, 25, 50, 100, 150, 200, 300, 400, 500, 600), dts=(25, 100))
    assert headline_spacing(run) == 100
    assert "S(t, t+100)" in finding(run, "Cone effect").sentence


def test_ceiling_is_taken_at_the_same_step(make_run):
    run = make_run()
    (series,) = ceiling(run, "main", "dissimilarity")
    table = run.table("ceilings")
    assert sorted(series.points[100].values) == sorted(table["dissimilarity"][table["step"] == 300])
    assert ceiling(run, "low_lr", "dissimilarity") == []
