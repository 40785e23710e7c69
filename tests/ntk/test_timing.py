"""Measured throughputs, kept; predicted seconds; devices that are not at hand."""

import json
import math

import pytest
import torch

import twophase_fast as tp
from twophase_fast import zoo
from twophase_fast._model_cases import MODEL_CASES
from twophase_fast._types import InputError, StorageError
from twophase_fast.ntk import calibration
from twophase_fast.ntk.calibration import DEFAULT, Rates
from twophase_fast.ntk.timing import DEVICES

CPU = torch.device("cpu")


def rates(**tables):
    return Rates(**{**DEFAULT.__dict__, **tables})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a measurement that counts its calls."""
    monkeypatch.setenv("TWOPHASE_CACHE_DIR", str(tmp_path))
    calibration._cached.cache_clear()
    calls = []
    monkeypatch.setattr(calibration, "measure", lambda device: calls.append(device) or rates(copy=((1.0, 7e9),)))
    yield tmp_path, calls
    calibration._cached.cache_clear()


def test_rates_are_interpolated_on_logarithmic_axes():
    table = rates(gram=((10.0, 1e9), (1000.0, 1e11)))
    assert table.at("gram", 1) == 1e9
    assert table.at("gram", 1e6) == 1e11
    assert table.at("gram", 100) == pytest.approx(1e10)
    between = rates(factored_one=((1.0, 1e9),), factored_many=((1.0, 1e11),))
    assert between.factored(3, 1) == pytest.approx(1e9)
    assert between.factored(3, 10) == between.factored(3, 50) == pytest.approx(1e11)


def test_measured_once_kept_and_measured_again(cache):
    folder, calls = cache
    assert calibration.known_rates(CPU) == DEFAULT
    assert tp.calibrate().copy == ((1.0, 7e9),)
    assert calibration.known_rates(CPU) == tp.calibrate() != DEFAULT
    assert len(calls) == 1
    tp.calibrate(refresh=True)
    assert len(calls) == 2
    (stored,) = folder.glob("rates-*.json")
    assert json.loads(stored.read_text())["rates"]["copy"] == [[1.0, 7e9]]


def test_a_damaged_cache_says_which_file(cache):
    folder, _ = cache
    tp.calibrate()
    (stored,) = folder.glob("rates-*.json")
    stored.write_text("{}")
    calibration._cached.cache_clear()
    with pytest.raises(StorageError, match=r"rates-.*remove the file"):
        tp.calibrate()


def test_every_rate_of_this_machine_is_plausible():
    for table in calibration.measure(CPU).__dict__.values():
        assert all(1e6 < rate < 1e15 for _, rate in table)


def test_methods_follow_the_rates(monkeypatch):
    model, x = zoo.mlp(20, (30,), 5), torch.randn(6, 20)
    slow = ((1.0, 1.0),)
    for kind, table in (("factored", rates(gram=slow)), ("materialise", rates(factored_one=slow, factored_many=slow))):
        monkeypatch.setattr("twophase_fast.ntk.computation.known_rates", lambda device, table=table: table)
        assert tp.plan(model, x).methods["1.weight"] == kind


@pytest.mark.parametrize("name", ["vit", "gpt_tied", "vgg16_narrow", "weight_norm"])
def test_a_plan_predicts_seconds(name):
    model, inputs, options = MODEL_CASES[name]()
    plan = tp.plan(model, inputs, **options)
    assert plan.seconds == pytest.approx(sum(plan.stages.values()))
    assert plan.seconds > 0
    assert sum(row.seconds for row in plan.rows) == pytest.approx(plan.stages["gram"])
    assert "predicted time" in str(plan)


def test_more_samples_take_longer():
    model = zoo.resnet20(width=4).eval()
    few, many = (tp.plan(model, torch.randn(n, 3, 16, 16), profile="a100-80gb").seconds for n in (16, 64))
    assert 2 < many / few < 16


def test_named_devices_share_the_work():
    model, x = zoo.resnet20(width=4).eval(), torch.randn(64, 3, 16, 16)
    one, eight = (tp.plan(model, x, profile="h100-80gb", world_size=w) for w in (1, 8))
    assert eight.stages["gram"] == pytest.approx(one.stages["gram"] / 8)
    assert eight.stages["capture"] == pytest.approx(one.stages["capture"] / 8)
    assert eight.stages["exchange"] > 0
    assert eight.peak_bytes < one.peak_bytes
    assert "8 x h100-80gb" in str(eight)
    assert not math.isnan(one.seconds)


def test_bad_devices():
    model, x = zoo.mlp(20, (30,), 5), torch.randn(6, 20)
    with pytest.raises(InputError, match=rf"profile='tpu' is unknown.*{next(iter(DEVICES))}"):
        tp.plan(model, x, profile="tpu")
    with pytest.raises(InputError, match="world_size=0"):
        tp.plan(model, x, world_size=0)
