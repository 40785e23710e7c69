from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from twophase_fast import _native, ntk
from twophase_fast.cli import main
from twophase_fast.ops import _dispatch


def invoke(*arguments: str):
    return CliRunner().invoke(main, ["doctor", *arguments])


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("TWOPHASE_BACKEND", "TWOPHASE_ISA"):
        monkeypatch.delenv(name, raising=False)


def test_json_says_what_is_there():
    found = json.loads(invoke("--json").output)
    assert found["versions"]["torch"] == torch.__version__
    assert found["backends"]["reference"] == "ready"
    assert found["ops"]["gram"] == _dispatch.backends("gram")
    assert found["hardware"]["usable_cores"] >= 1


def test_text_has_every_part():
    text = invoke().output
    for title in ("versions", "hardware", "extension", "backends", "ops", "openmp"):
        assert f"\n{title}\n" in f"\n{text}"


def test_missing_extension_is_explained(monkeypatch):
    monkeypatch.setattr(_native, "_C", None)
    monkeypatch.setattr(_native, "_import_error", ImportError("libfoo.so is not there"))
    monkeypatch.setattr(_native, "_warned", True)
    found = json.loads(invoke("--json").output)
    assert found["extension"]["loaded"] is False
    assert "libfoo.so is not there" in found["extension"]["reason"]
    assert "libfoo.so is not there" in found["backends"]["cpu"]


@pytest.mark.skipif(_native.missing() is not None, reason="needs the compiled extension")
def test_forced_tier_is_reported(monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", "scalar")
    found = json.loads(invoke("--json").output)
    assert found["extension"]["isa_chosen"] == "scalar"
    assert found["extension"]["isa_limit"] == "scalar"
    assert found["environment"]["TWOPHASE_ISA"] == "scalar"
    assert found["extension"]["matrix_unit_chosen"].startswith("none: Gram blocks at 'high' run at 'highest'")
    monkeypatch.setenv("TWOPHASE_ISA", "amx-emulated")
    found = json.loads(invoke("--json").output)
    assert found["extension"]["matrix_unit_chosen"] == "amx-emulated"
    assert found["extension"]["matrix_units"] == list(_native.available_matrix_units())


def test_forced_backend_is_reported(monkeypatch):
    monkeypatch.setenv("TWOPHASE_BACKEND", "reference")
    assert json.loads(invoke("--json").output)["backends"]["reference"] == "ready (forced by TWOPHASE_BACKEND)"


def test_unknown_setting_fails_with_its_name(monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", "sse9")
    result = invoke()
    assert result.exit_code == 1
    assert "TWOPHASE_ISA='sse9' is not one of" in result.stderr


def test_no_gpu_is_a_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch sees no GPU" in json.loads(invoke("--json").output)["backends"]["triton"]


def test_calibrate_measures_anew(monkeypatch):
    calls = []
    monkeypatch.setattr(ntk, "calibrate", lambda **options: calls.append(options))
    assert invoke("--calibrate").exit_code == 0
    assert calls == [{"refresh": True}]
