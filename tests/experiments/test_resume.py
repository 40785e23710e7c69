import json
import subprocess
import sys

import pytest

from twophase_fast._types import InputError, StorageError
from twophase_fast.experiments import run_config, session
from twophase_fast.storage import Trajectory
from twophase_fast.training import SupervisedLoop

# A worker that dies, without a chance to clean up, at the n-th of the moments that matter: before and after every
# training step, every part that is published and every checkpoint. os._exit is as sudden as SIGKILL.
WORKER = """
import json, os, sys
from twophase_fast.experiments import run_config, session, workspace
from twophase_fast.storage.store import Store
from twophase_fast.training import SupervisedLoop

left = int(sys.argv[3])

def mortal(owner, name):
    original = getattr(owner, name)
    def wrapped(*args, **kwargs):
        tick()
        result = original(*args, **kwargs)
        tick()
        return result
    setattr(owner, name, wrapped)

def tick():
    global left
    left -= 1
    if left == 0:
        os._exit(9)

mortal(SupervisedLoop, "step")
mortal(Store, "publish")
mortal(Store, "pack")
mortal(workspace, "save_checkpoint")
session.CHECKPOINT_SECONDS = float(sys.argv[4])
run_config(json.loads(sys.argv[1]), sys.argv[2], resume=True)
"""


@pytest.fixture
def short(config):
    """The tiny configuration with one seed and its control: what is cut off below."""
    return {**config, "seeds": [1]}


@pytest.fixture(scope="module")
def straight(whole_config, tmp_path_factory):
    """The same run, never cut off."""
    out = tmp_path_factory.mktemp("straight") / "run.h5"
    run_config({**whole_config, "seeds": [1]}, out)
    return out


def die(config, out, moment, checkpoint_seconds):
    command = [sys.executable, "-c", WORKER, json.dumps(config), str(out), str(moment), str(checkpoint_seconds)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(("moments", "checkpoint_seconds"), [((9, 77), 0), ((55,), 60)])
def test_a_run_killed_again_and_again_ends_in_the_same_numbers(
    short, straight, tmp_path, identical, moments, checkpoint_seconds
):
    out = tmp_path / "killed.h5"
    for moment in moments:
        process = die(short, out, moment, checkpoint_seconds)
        assert process.returncode == 9, process.stderr
        assert not out.exists()
    run_config(short, out, resume=True)
    assert identical(straight, out)
    assert not (tmp_path / "killed.h5.parts").exists()


def interrupt_at(monkeypatch, count):
    original, calls = SupervisedLoop.step, []

    def step(self, i):
        calls.append(i)
        if len(calls) == count:
            raise KeyboardInterrupt
        return original(self, i)

    monkeypatch.setattr(SupervisedLoop, "step", step)


@pytest.mark.parametrize(
    ("moment", "checkpoint_seconds"), [(1, 0.0), (11, 0.0), (17, 0.0), (27, 0.0), (48, 0.0), (17, 60.0), (48, 60.0)]
)
def test_ctrl_c_says_how_to_resume_and_the_numbers_are_the_same(
    short, straight, tmp_path, monkeypatch, identical, moment, checkpoint_seconds
):
    out = tmp_path / "run.h5"
    with monkeypatch.context() as patched:
        patched.setattr(session, "CHECKPOINT_SECONDS", checkpoint_seconds)
        interrupt_at(patched, moment)
        with pytest.raises(KeyboardInterrupt, match=r"run\.h5\.parts .* resume=True \(--resume\)"):
            run_config(short, out)
    run_config(short, out, resume=True)
    assert identical(straight, out)


def test_little_is_computed_twice(short, tmp_path, monkeypatch):
    out = tmp_path / "run.h5"
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patched:
        interrupt_at(patched, 40)
        with pytest.raises(KeyboardInterrupt):
            run_config(short, out)
    calls = []
    original = SupervisedLoop.step
    monkeypatch.setattr(SupervisedLoop, "step", lambda self, i: (calls.append(i), original(self, i))[1])
    run_config(short, out, resume=True)
    assert len(calls) == 50 - 39


def test_resuming_a_finished_run_changes_nothing_and_one_not_begun_starts_it(short, tmp_path):
    out = tmp_path / "run.h5"
    run_config(short, out, resume=True)
    before = out.read_bytes()
    again = run_config(short, out, resume=True)
    assert out.read_bytes() == before
    assert again.children == ["main-seed1", "low_lr-seed1"]


def test_only_the_same_experiment_resumes(short, tmp_path, monkeypatch):
    out = tmp_path / "run.h5"
    with monkeypatch.context() as patched:
        interrupt_at(patched, 7)
        with pytest.raises(KeyboardInterrupt):
            run_config(short, out)
    with pytest.raises(InputError, match=r"configuration differs in batch_size, optimizer\.lr"):
        run_config({**short, "batch_size": 8, "optimizer": {**short["optimizer"], "lr": 0.2}}, out, resume=True)
    with pytest.raises(StorageError, match="unfinished run"):
        run_config(short, out)
    mark = tmp_path / "run.h5.checkpoints" / "id"
    mark.write_text("another")
    with pytest.raises(StorageError, match="does not hold the checkpoints of this run"):
        run_config(short, out, resume=True)
    assert Trajectory.open(out).children == ["main-seed1"]
    run_config(short, out, overwrite=True)
    assert Trajectory.open(out).attrs["complete"]


def test_a_resumed_run_keeps_its_number_of_threads(short, tmp_path, monkeypatch):
    import torch

    out = tmp_path / "run.h5"
    with monkeypatch.context() as patched:
        interrupt_at(patched, 7)
        with pytest.raises(KeyboardInterrupt):
            run_config(short, out)
    seen = []
    original = SupervisedLoop.step
    monkeypatch.setattr(
        SupervisedLoop, "step", lambda self, i: (seen.append(torch.get_num_threads()), original(self, i))[1]
    )
    torch.set_num_threads(2)
    run_config({**short}, out, resume=True)
    torch.set_num_threads(1)
    assert set(seen) == {1}
