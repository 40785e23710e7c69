"""Kills, full disks, failing calls: nothing appended is lost, nothing half-written is read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from twophase_fast._types import StorageError
from twophase_fast.storage import Trajectory, verify
from twophase_fast.storage.store import folder_of, parts_of

from .helpers import contents, write

WRITER = """
import sys, torch
from twophase_fast.storage import Trajectory
t = Trajectory.create(sys.argv[1], config={"lr": 0.1})
child = t.child("main")
step = 0
while True:
    kernel = torch.full((40, 40), float(step))
    child.append(step, kernel=kernel, metrics={"loss": step}, parameters={"w": torch.ones(9)})
    t.append_rows("rows", [{"step": step}])
    print(step, flush=True)
    step += 1
"""

FILLER = """
import resource, sys, torch
from twophase_fast._types import StorageError
from twophase_fast.storage import Trajectory
t = Trajectory.create(sys.argv[1])
t.append(0, kernel=torch.ones(10, 10), metrics={"loss": 1})
t.append(1, metrics={"loss": 2})
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))  # no file may grow beyond 60 kB
for attempt in range(2):
    try:
        t.append(2, kernel=torch.ones(10, 10), metrics={"loss": 3}, parameters={"w": torch.rand(400, 400)})
    except StorageError as error:
        print("refused:", error)
if sys.argv[2] == "room":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
t.append(3, kernel=torch.zeros(10, 10) + 3, metrics={"loss": 4})
t.close()
"""


@pytest.mark.parametrize("seen", [1, 6])
def test_kill_in_the_middle_of_writing_loses_nothing_that_was_appended(run: Path, seen):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(run)], stdout=subprocess.PIPE, text=True)
    for _ in range(seen):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    done = [int(line) for line in process.stdout.read().split()]
    assert process.wait() == -signal.SIGKILL
    last = max(done, default=seen - 1)
    t = Trajectory.open(run)
    child = t.child("main")
    assert child.steps in (list(range(last + 1)), list(range(last + 2)))
    for step in child.steps:
        assert torch.equal(child.kernel(step), torch.full((40, 40), float(step)))
        assert child.parameters(step)["w"].tolist() == [1.0] * 9
    assert child.metric("loss")[0].tolist() == child.steps
    assert t.table("rows")["step"].tolist() == list(range(last + 1))
    assert verify(run) == []
    with Trajectory.append_to(run) as again:
        again.child("main").append(1000, kernel=torch.zeros(40, 40))
    assert Trajectory.open(run).child("main").steps == [*child.steps, 1000]
    assert not folder_of(run).exists()
    assert len(Trajectory.open(run).provenance["resumed"]) == 1


@pytest.mark.parametrize("room", ["room", "none"])
def test_a_full_disk_loses_nothing_and_the_run_goes_on_when_there_is_room(run: Path, room):
    """The limit on file size stands for a full disk: writes fail inside HDF5 itself."""
    answer = subprocess.run([sys.executable, "-c", FILLER, str(run), room], capture_output=True, text=True)
    refusals = [line for line in answer.stdout.splitlines() if line.startswith("refused:")]
    assert len(refusals) == 2, answer.stderr
    assert "cannot write" in refusals[0]
    assert "make room" in refusals[0]
    t = Trajectory.open(run)
    assert verify(run) == []
    assert t.metric("loss")[1].tolist() == [1.0, 2.0, 4.0]
    assert t.steps == [0, 3]
    assert torch.equal(t.kernel(0), torch.ones(10, 10))
    if room == "room":
        assert (answer.returncode, answer.stderr) == (0, "")
        assert not folder_of(run).exists()


def test_a_half_written_temporary_file_is_ignored_and_cleared(run: Path):
    write(run)._store.abandon()
    leftover = folder_of(run) / ".00000004-feed.h5.tmp"
    leftover.write_bytes(parts_of(run)[0].read_bytes()[:100])
    assert Trajectory.open(run).steps == [0, 1]
    assert verify(run) == []
    with Trajectory.append_to(run) as t:
        assert not leftover.exists()
        assert t.steps == [0, 1]
    assert list(run.parent.iterdir()) == [run]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failing_system_call_adds_nothing_and_leaves_no_temporary_file(run: Path, monkeypatch, call):
    t = write(run)
    t.append(5, metrics={"loss": 5})
    before = contents(folder_of(run))

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        for attempt in (
            lambda: t.append(2, kernel=torch.ones(3, 3), metrics={"loss": 2}),
            lambda: t.append_rows("rows", [{"a": 1}]),
            lambda: t.set_attrs({"a": 1}),
            t.flush,
            t.close,
        ):
            with pytest.raises(StorageError, match="No space left"):
                attempt()
        assert {k: v for k, v in contents(folder_of(run)).items() if not k.startswith(".")} == {
            k: v for k, v in before.items() if not k.startswith(".")
        }
        assert not list(folder_of(run).glob("*.tmp"))
    t.append(2, kernel=torch.ones(3, 3), metrics={"loss": 2})
    t.close()
    t = Trajectory.open(run)
    assert t.metric("loss")[0].tolist() == [0, 1, 2, 5]
    assert t.steps == [0, 1, 2]


def test_failing_to_pack_keeps_the_parts(run: Path, monkeypatch):
    t = write(run)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(StorageError, match="append_to"):
            t.close()
    assert not run.exists()
    assert Trajectory.open(run).steps == [0, 1]
    t.close()
    assert Trajectory.open(run).steps == [0, 1]
    assert not folder_of(run).exists()


def test_an_error_in_the_block_leaves_the_parts_for_later(run: Path):
    def cut_off():
        with Trajectory.create(run) as t:
            t.append(0, kernel=torch.ones(2, 2))
            t.append(1, metrics={"loss": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cut_off()
    assert not run.exists()
    t = Trajectory.open(run)
    assert (t.steps, t.metric("loss")[0].tolist()) == ([0], [1])
    with Trajectory.append_to(run) as t:
        t.append(1, kernel=torch.ones(2, 2))
    assert Trajectory.open(run).steps == [0, 1]


def test_metrics_are_durable_after_flush_and_with_the_next_kernel(run: Path):
    t = Trajectory.create(run)
    t.append(0, metrics={"loss": 0})
    assert Trajectory.open(run).metrics == []
    t.flush()
    assert Trajectory.open(run).metric("loss")[0].tolist() == [0]
    t.append(1, metrics={"loss": 1})
    t.append(2, kernel=torch.ones(2, 2))
    assert Trajectory.open(run).metric("loss")[0].tolist() == [0, 1]
    t.close()


def test_metrics_are_written_when_the_batch_is_old_or_large(run: Path, monkeypatch):
    t = Trajectory.create(run)
    monkeypatch.setattr("twophase_fast.storage.recorder._BATCH_SECONDS", 0.0)
    t.append(0, metrics={"loss": 0})
    t.append(1, metrics={"loss": 1})
    assert Trajectory.open(run).metric("loss")[0].tolist() == [0, 1]
    monkeypatch.setattr("twophase_fast.storage.recorder._BATCH_SECONDS", 1e9)
    monkeypatch.setattr("twophase_fast.storage.recorder._BATCH_VALUES", 3)
    for step in (2, 3, 4, 5):
        t.append(step, metrics={"loss": step})
    assert Trajectory.open(run).metric("loss")[0].tolist() == [0, 1, 2, 3, 4]
    t.close()
    assert Trajectory.open(run).metric("loss")[0].tolist() == [0, 1, 2, 3, 4, 5]
