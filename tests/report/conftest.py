"""Synthetic runs, written once per recipe and shared by the tests of a session."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from twophase_fast.report import write_report
from twophase_fast.report.data import Run, read_run


def _load_synthetic() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_synthetic", Path(__file__).with_name("synthetic.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The maker of synthetic trajectories."""
    return _load_synthetic()


@pytest.fixture(scope="session")
def make_path(synthetic, tmp_path_factory) -> Callable[..., Path]:
    """Recipe fields -> path of a stored run (the same file for the same fields)."""
    known: dict[str, Path] = {}

    def make(**fields) -> Path:
        key = repr(sorted(fields.items()))
        if key not in known:
            path = tmp_path_factory.mktemp("run") / "run.h5"
            known[key] = synthetic.write(path, synthetic.Recipe(**fields))
        return known[key]

    return make


@pytest.fixture(scope="session")
def make_run(make_path) -> Callable[..., Run]:
    """Recipe fields -> the run as the report reads it."""
    return lambda **fields: read_run(make_path(**fields))


SMALL = {
    "spawn_steps": (0, 50, 400),
    "horizons": (50, 200),
    "probe_steps": (0, 50, 100, 200, 400, 500, 600),
    "dts": (50, 100),
}
"""A run with everything in it, small enough to draw quickly."""


@pytest.fixture(scope="session")
def small() -> dict:
    """Recipe fields of a small complete run."""
    return SMALL


@pytest.fixture(scope="session")
def page(make_path, tmp_path_factory) -> str:
    """The page of a small complete run."""
    out = tmp_path_factory.mktemp("page") / "run.html"
    return write_report(make_path(**SMALL), out).read_text(encoding="utf-8")
