"""neural-tangents as a peer: the child process, the export, and the models rebuilt in JAX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import accuracy, jax_export, jax_peer, peers
from benchmarks.child import ROOT, Child, ChildError, TooSlowError
from benchmarks.workloads import WORKLOADS, of_suite, randomise
from twophase_fast import zoo
from twophase_fast.ntk import naive_entk

ECHO = """
from benchmarks.child import serve
import os, sys, time
def answer(request):
    print("noise")
    if request["what"] == "fail": raise ValueError("no such thing")
    if request["what"] == "sleep": time.sleep(60)
    if request["what"] == "die": sys.exit("out of luck")
    return {"got": request["what"]}
serve(answer)
"""
needs_jax = pytest.mark.skipif(
    not jax_peer.READY.exists(), reason="neural-tangents has an environment of its own: make bench-peers"
)


def child() -> Child:
    return Child([sys.executable, "-c", ECHO])


def test_a_child_answers_and_tells_errors():
    with child() as started:
        assert started.ask(what="one") == {"got": "one"}
        with pytest.raises(ChildError, match="ValueError: no such thing"):
            started.ask(what="fail")
        assert started.ask(what="two") == {"got": "two"}


def test_a_child_that_dies_is_told_with_its_last_words():
    with child() as started:
        with pytest.raises(ChildError, match=r"ended with code 1: .*out of luck"):
            started.ask(what="die")
        with pytest.raises(ChildError, match="ended with code 1"):
            started.ask(what="one")


def test_a_child_that_is_too_slow_is_ended():
    with child() as started, pytest.raises(TooSlowError, match=r"no answer within 0\.2 s"):
        started.ask(0.2, what="sleep")
    assert started._process.poll() is not None


def test_statuses():
    assert peers.status_of(TooSlowError("late")) == "too slow"
    assert peers.status_of(ModuleNotFoundError("no module")) == "not installed"
    assert peers.status_of(ChildError("no")) == "refuses"


def test_without_the_environment_the_peer_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(jax_peer, "READY", tmp_path / "missing")
    workload = WORKLOADS["smoke-mlp"]
    with (
        pytest.raises(ModuleNotFoundError, match="make bench-peers"),
        peers.session("neural-tangents 1", workload, *workload.build()),
    ):
        pass


def test_hopeless_pairs_name_peers_with_a_reason():
    for row in WORKLOADS.values():
        assert set(row.hopeless) <= set(row.peers) <= set(peers.NAMES)
        assert all(row.hopeless.values())


def test_every_workload_of_neural_tangents_can_be_exported():
    for row in WORKLOADS.values():
        if set(row.peers) & set(jax_peer.IMPLEMENTATIONS):
            assert jax_export.describe(row.build()[0])


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.GELU()), nn.Conv2d(4, 4, 3, groups=2), nn.MaxPool2d(3, stride=2)], ids=str
)
def test_what_jax_does_not_know_is_refused(model):
    with pytest.raises(jax_export.NotExportableError, match="not written for JAX"):
        jax_export.describe(model)


def test_arrays_of_an_export(tmp_path):
    model, x = WORKLOADS["smoke-vgg16"].build()
    jax_export.export(model, x, tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        torch.testing.assert_close(torch.from_numpy(file["inputs"]), x.permute(0, 2, 3, 1))
        torch.testing.assert_close(torch.from_numpy(file["parameter:0.weight"]), model[0].weight.permute(2, 3, 1, 0))
        std = (model[1].running_var + model[1].eps).sqrt()
        torch.testing.assert_close(torch.from_numpy(file["constant:1.inverse_std"]), 1 / std)


@needs_jax
@pytest.mark.parametrize(
    ("model", "side", "output", "implementation"),
    [
        (zoo.vgg16(width=0.0625), 32, "full", 3),
        (zoo.resnet20(width=4), 32, "trace", 1),
        (zoo.tutorial_cnn(image_size=9), 9, "full", 3),
        (zoo.vit(d=8, depth=2, heads=2, image_size=8), 8, "full", 2),
    ],
    ids=["vgg16", "resnet20-trace", "cnn", "vit"],
)
def test_models_in_jax_have_the_same_kernel(model, side, output, implementation):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, side, side, generator=generator)
    randomise(model, generator)
    name = f"neural-tangents {implementation}"
    with jax_peer.started(name, model.eval(), x, output) as remote:
        truth = naive_entk(model.double(), x.double(), output=output)
        assert accuracy.relative_error(remote.kernel, truth) < 2e-5
        remote.run()


def test_make_knows_the_environment():
    command = ["make", "--dry-run", "--always-make", "bench-peers"]
    recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "neural-tangents==0.6.5" in recipe
    assert str(jax_peer.READY.relative_to(ROOT)) in recipe


def test_smoke_rows_ask_for_every_peer():
    assert all(set(row.peers) == set(peers.NAMES) - {peers.OURS, peers.OURS_HIGH} for row in of_suite("smoke"))
