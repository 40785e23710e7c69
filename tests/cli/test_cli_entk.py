from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from twophase_fast import zoo
from twophase_fast.cli import main
from twophase_fast.ntk import entk
from twophase_fast.storage import Trajectory

FACTORY = """
import torch

def build(width=3):
    return torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Linear(width, 2))

def double():
    return build().double()

def nothing():
    return torch.nn.Flatten()

def text():
    return "a model"

def fails():
    raise ZeroDivisionError("theirs")
"""


def invoke(*arguments: object):
    return CliRunner().invoke(main, ["entk", *map(str, arguments)])


@pytest.fixture(autouse=True)
def factory_module(tmp_path, monkeypatch):
    (tmp_path / "their_models.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("their_models", None)


@pytest.fixture
def inputs(tmp_path):
    path = tmp_path / "x.npy"
    samples = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).numpy()
    np.save(path, samples)
    return path


@pytest.mark.parametrize(
    ("output", "shape"), [("full", (5, 5, 2, 2)), ("trace", (5, 5)), ("diagonal", (5, 5, 2)), ("sum", (5, 5))]
)
def test_outputs(tmp_path, inputs, output, shape):
    result = invoke("their_models:build", inputs, "--output", output, "--out", tmp_path / "k.npy")
    assert result.exit_code == 0, result.stderr
    assert np.load(tmp_path / "k.npy").shape == shape


def test_kernel_is_that_of_the_library(tmp_path):
    result = invoke("small_cnn", "fashion-mnist-subset", "--n", 3, "--seed", 4, "--out", tmp_path / "k.h5")
    assert result.exit_code == 0, result.stderr
    samples = zoo.load()[1].inputs[:3]
    wanted = entk(zoo.small_cnn(seed=4).eval(), samples)
    with Trajectory.open(tmp_path / "k.h5") as trajectory:
        torch.testing.assert_close(trajectory.kernel(0), wanted, rtol=0, atol=0)
        assert torch.equal(trajectory.probe, samples)
        assert trajectory.config["model"] == "small_cnn"


def test_model_arguments_and_dtype(tmp_path, inputs):
    assert invoke("their_models:double", inputs, "--out", tmp_path / "k.npy").exit_code == 0
    assert np.load(tmp_path / "k.npy").dtype == np.float64
    wide = invoke("their_models:build", inputs, "--out", tmp_path / "w.npy", "--model-arg", "width=7")
    assert wide.exit_code == 0, wide.stderr
    narrow = np.load(tmp_path / "k.npy")
    assert not np.allclose(np.load(tmp_path / "w.npy"), narrow)


def test_data_files(tmp_path, inputs):
    samples = np.load(inputs)
    np.savez(tmp_path / "x.npz", samples)
    torch.save(torch.from_numpy(samples), tmp_path / "x.pt")
    kernels = []
    for name in ("x.npy", "x.npz", "x.pt"):
        out = tmp_path / f"{name}.k.npy"
        assert invoke("their_models:build", tmp_path / name, "--n", 2, "--out", out).exit_code == 0
        kernels.append(np.load(out))
    np.testing.assert_array_equal(kernels[0], kernels[1])
    np.testing.assert_array_equal(kernels[0], kernels[2])
    assert kernels[0].shape == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        ("their_models:build", "none.npy", "data file none.npy does not exist"),
        ("their_models:build", "x.csv", "expected a .npy, .npz or .pt file or one of fashion-mnist-subset"),
        ("their_models:build", "two.npz", "holds 2 arrays (a, b); expected one"),
        ("their_models:build", "empty.npy", "holds no samples"),
        ("their_models:build", "damaged.npy", "cannot read damaged.npy"),
        ("their_models:build", "dict.pt", "holds a dict; expected one tensor"),
        ("their_models:text", "x.npy", "returned a str"),
        ("their_models:fails", "x.npy", "the model factory raised ZeroDivisionError: theirs"),
        ("resnet20", "x.npy", "the model cannot take this data (a sample is [4] float32)"),
        ("resnet20", "fashion-mnist-subset", "--model-arg in_channels=1"),
        ("their_models:nothing", "x.npy", "no parameter"),
        ("no_such_model", "x.npy", "no_such_model"),
        ("their_models:missing", "x.npy", "missing"),
    ],
)
def test_bad_models_and_data_write_nothing(tmp_path, monkeypatch, inputs, model, data, words):
    monkeypatch.chdir(tmp_path)
    np.savez("two.npz", a=np.ones(2), b=np.ones(2))
    np.save("empty.npy", np.ones((0, 4)))
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY\x01\x00nonsense")
    torch.save({"x": torch.ones(2)}, "dict.pt")
    result = invoke(model, data, "--out", "k.npy")
    assert result.exit_code in {1, 2}
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "k.npy").exists()


@pytest.mark.parametrize("name", ["k.npy", "k.h5"])
def test_existing_output_is_kept(tmp_path, inputs, name):
    out = tmp_path / name
    assert invoke("their_models:build", inputs, "--out", out, "--output", "trace").exit_code == 0
    before = out.read_bytes()
    result = invoke("their_models:build", inputs, "--out", out)
    assert result.exit_code == 1
    assert "exists; replace it with --overwrite" in result.stderr
    assert out.read_bytes() == before
    assert invoke("their_models:build", inputs, "--out", out, "--overwrite").exit_code == 0
    assert out.read_bytes() != before


def test_budget_is_kept_to(tmp_path, inputs):
    assert invoke("their_models:build", inputs, "--out", tmp_path / "k.npy", "--memory-budget", "1 GB").exit_code == 0
    result = invoke("their_models:build", inputs, "--out", tmp_path / "small.npy", "--memory-budget", "10 B")
    assert result.exit_code == 1
    assert not (tmp_path / "small.npy").exists()


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, monkeypatch, inputs):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = invoke("their_models:build", inputs, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "0.weight" in result.output
    assert sorted(tmp_path.iterdir()) == before


def test_dry_run_plans_for_devices_that_are_not_at_hand(inputs):
    result = invoke("their_models:build", inputs, "--dry-run", "--profile", "h100-80gb", "--world-size", "4")
    assert result.exit_code == 0, result.stderr
    assert "4 x h100-80gb" in result.output


def test_devices_without_a_dry_run_are_bad_usage(tmp_path, inputs):
    result = invoke("their_models:build", inputs, "--out", tmp_path / "k.npy", "--world-size", "4")
    assert result.exit_code == 2
    assert "--dry-run" in result.stderr
