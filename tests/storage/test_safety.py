"""Kills, full disks, other writers, damaged files: nothing appended is lost, nothing half-written is read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from twophase_fast._types import StorageError
from twophase_fast.storage import Trajectory, verify
from twophase_fast.storage.store import folder_of, parts_of

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


def write(run: Path, **options) -> Trajectory:
    """Two steps in parts; the trajectory stays open."""
    t = Trajectory.create(run, **options)
    for step in (0, 1):
        t.append(step, kernel=torch.full((3, 3), float(step + 1)), metrics={"loss": step})
    return t


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


def test_an_existing_run_is_not_replaced_without_overwrite(run: Path):
    write(run).close()
    before = contents(run.parent)
    with pytest.raises(StorageError, match="overwrite=True"):
        Trajectory.create(run)
    assert contents(run.parent) == before


def test_an_unfinished_run_is_not_replaced_without_overwrite(run: Path):
    write(run)._store.abandon()
    before = contents(run.parent)
    with pytest.raises(StorageError, match="append_to"):
        Trajectory.create(run)
    assert contents(run.parent) == before


def test_overwriting_replaces_only_at_the_close(run: Path):
    write(run, config={"run": "old"}).close()
    old = run.read_bytes()
    t = Trajectory.create(run, config={"run": "new"}, overwrite=True)
    t.append(7, kernel=torch.ones(2, 2))
    assert run.read_bytes() == old
    assert Trajectory.open(run).config == {"run": "old"}
    assert Trajectory.open(folder_of(run)).config == {"run": "new"}
    assert verify(run) == []
    t.close()
    assert (Trajectory.open(run).config, Trajectory.open(run).steps) == ({"run": "new"}, [7])
    assert list(run.parent.iterdir()) == [run]


def test_a_cut_off_overwriting_run_can_go_on(run: Path):
    write(run, config={"run": "old"}).close()
    Trajectory.create(run, config={"run": "new"}, overwrite=True)._store.abandon()
    with Trajectory.append_to(run) as t:
        assert t.config == {"run": "new"}
        t.append(3, kernel=torch.ones(2, 2))
    assert Trajectory.open(run).steps == [3]
    assert list(run.parent.iterdir()) == [run]


def test_overwriting_an_unfinished_run_keeps_its_parts_until_the_close(run: Path):
    write(run)._store.abandon()
    t = Trajectory.create(run, overwrite=True)
    (aside,) = run.parent.glob("*.replaced-*")
    assert Trajectory.open(aside).steps == [0, 1]
    t.append(5, kernel=torch.ones(2, 2))
    t.close()
    assert list(run.parent.iterdir()) == [run]
    assert Trajectory.open(run).steps == [5]


def test_a_refused_overwrite_puts_the_unfinished_run_back(run: Path):
    write(run)._store.abandon()
    with pytest.raises(ValueError, match="dense"):
        Trajectory.create(run, overwrite=True, probe={"x": 3})
    assert Trajectory.open(run).steps == [0, 1]
    assert list(run.parent.iterdir()) == [folder_of(run)]


def test_a_closed_run_can_be_added_to_and_stays_readable_meanwhile(run: Path):
    write(run, config={"a": 1}, probe=torch.ones(2)).close()
    with Trajectory.append_to(run) as t:
        t.append(0, metrics={"rank": 3})
        t.append(2, kernel=torch.ones(3, 3))
        assert Trajectory.open(run).steps == Trajectory.open(folder_of(run)).steps == [0, 1, 2]
        with pytest.raises(ValueError, match="already"):
            t.append(0, kernel=torch.ones(3, 3))
    t = Trajectory.open(run)
    assert (t.steps, t.metrics, t.config) == ([0, 1, 2], ["loss", "rank"], {"a": 1})
    assert torch.equal(t.probe, torch.ones(2))
    assert list(run.parent.iterdir()) == [run]


def test_opening_to_add_nothing_changes_nothing(run: Path):
    write(run).close()
    before = run.read_bytes()
    with Trajectory.append_to(run):
        pass
    assert run.read_bytes() == before
    assert list(run.parent.iterdir()) == [run]


def test_parts_that_were_packed_but_not_removed_count_once(run: Path, monkeypatch):
    t = write(run)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError("kept busy")))
        with pytest.raises(OSError, match="kept busy"):
            t.close()
    t._store.abandon()
    assert run.exists()
    assert len(parts_of(run)) == 3
    assert Trajectory.open(run).steps == [0, 1]
    assert verify(run) == []
    with Trajectory.append_to(run) as t:
        t.append(9, kernel=torch.ones(3, 3))
    assert Trajectory.open(run).steps == [0, 1, 9]
    assert list(run.parent.iterdir()) == [run]


def test_two_writers_exclude_each_other(run: Path):
    t = write(run)
    for attempt in (lambda: Trajectory.append_to(run), lambda: Trajectory.create(run, overwrite=True)):
        with pytest.raises(StorageError, match="being written"):
            attempt()
    t.append(2, kernel=torch.ones(3, 3))
    t.close()
    assert Trajectory.open(run).steps == [0, 1, 2]


def test_a_run_can_be_read_while_it_is_written(run: Path):
    t = write(run)
    reader = Trajectory.open(run)
    t.append(2, kernel=torch.ones(3, 3))
    assert reader.steps == [0, 1]
    assert Trajectory.open(run).steps == [0, 1, 2]
    t.close()
    with pytest.raises(StorageError, match="open it again"):
        reader.kernel(0)
    assert t.steps == [0, 1, 2]
    assert torch.equal(t.kernel(0), torch.ones(3, 3))
    t.close()


def test_a_missing_run_is_named(run: Path):
    for attempt in (Trajectory.open, Trajectory.append_to, verify):
        with pytest.raises(StorageError, match=r"no trajectory at .*run.h5"):
            attempt(run)
    assert list(run.parent.iterdir()) == []


def test_places_that_cannot_be_written_are_named(run: Path):
    run.write_text("a file in the way")
    with pytest.raises(StorageError, match="cannot write in"):
        Trajectory.create(run / "below.h5")
    with pytest.raises(StorageError, match="is a folder"):
        Trajectory.create(run.parent, overwrite=True)


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "foreign"])
def test_a_file_that_is_no_trajectory_is_named(run: Path, damage):
    write(run).close()
    whole = run.read_bytes()
    if damage == "foreign":
        run.unlink()
        with h5py.File(run, "w") as file:
            file["x"] = 1
    else:
        run.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"hello" * 999}[damage])
    for attempt in (Trajectory.open, Trajectory.append_to):
        with pytest.raises(StorageError, match=r"run.h5"):
            attempt(run)
    assert len(verify(run)) == 1
    assert "run.h5" in verify(run)[0]
    assert list(run.parent.iterdir()) == [run]


def flip_one_byte(path: Path, place: str, index: tuple[int, ...]) -> None:
    with h5py.File(path, "r") as file:
        offset = file[place].id.get_chunk_info_by_coord(index).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 1] ^= 0xFF
    path.write_bytes(bytes(data))


def test_a_flipped_bit_in_a_kernel_is_found_and_located(run: Path):
    write(run).close()
    flip_one_byte(run, "kernels/kernel", (1, 0))
    t = Trajectory.open(run)
    assert torch.equal(t.kernel(0), torch.ones(3, 3))
    with pytest.raises(StorageError, match=r"run.h5 at /kernels/kernel\[1\]"):
        t.kernel(1)
    (problem,) = verify(run)
    assert "/kernels/kernel" in problem


def test_a_flipped_bit_in_a_metric_is_found(run: Path):
    write(run).close()
    flip_one_byte(run, "metrics/loss/value", (0,))
    with pytest.raises(StorageError, match=r"run.h5"):
        Trajectory.open(run)
    assert "run.h5" in verify(run)[0]


def test_a_damaged_or_missing_part_is_found(run: Path):
    write(run)._store.abandon()
    second = parts_of(run)[1]
    second_bytes = second.read_bytes()
    second.write_bytes(second_bytes[:500])
    with pytest.raises(StorageError, match=second.name):
        Trajectory.open(run)
    assert second.name in verify(run)[0]
    second.unlink()
    assert Trajectory.open(run).steps == [1]
    assert verify(run) == [f"{folder_of(run)}: part 2 is missing"]


def test_the_same_step_in_two_parts_is_found(run: Path):
    write(run)._store.abandon()
    part = parts_of(run)[1]
    (folder_of(run) / "00000004-copy.h5").write_bytes(part.read_bytes())
    with pytest.raises(StorageError, match="both hold the kernel of step 0"):
        Trajectory.open(run)
    assert "step 0" in verify(run)[0]


def test_files_of_two_runs_are_not_mixed(run: Path, tmp_path: Path):
    write(run).close()
    other = tmp_path / "other.h5"
    write(other)._store.abandon()
    folder_of(other).rename(folder_of(run))
    for attempt in (Trajectory.open, Trajectory.append_to):
        with pytest.raises(StorageError, match="different runs"):
            attempt(run)


def edited(run: Path, edit) -> list[str]:
    with h5py.File(run, "r+") as file:
        edit(file)
    return verify(run)


def test_verify_finds_steps_shapes_and_labels_that_are_wrong(run: Path):
    write(run).close()
    whole = run.read_bytes()

    def replace(name, value):
        def edit(file):
            parent = file[name].parent
            del file[name]
            parent.create_dataset(name.rsplit("/", 1)[1], data=value)

        return edit

    for edit, words in [
        (lambda file: file["metrics/loss/step"].write_direct(np.array([1, 0])), "steps do not increase"),
        (replace("kernels/kernel", np.ones((2, 5))), "expected (2, 6)"),
        (replace("metrics/loss/value", np.ones(2)), "no dimension scale"),
        (lambda file: file.attrs.modify("format", "something"), "not a trajectory"),
        (lambda file: file.attrs.__delitem__("run_id"), "run_id"),
    ]:
        run.write_bytes(whole)
        assert any(words in problem for problem in edited(run, edit)), words


def test_newer_versions_are_refused_by_major_and_read_by_minor(run: Path):
    write(run).close()
    with h5py.File(run, "r+") as file:
        file.attrs["format_version"] = "1.7"
        file.create_group("kernels/of_the_future")
        file.create_group("novelty")
    assert Trajectory.open(run).steps == [0, 1]
    with h5py.File(run, "r+") as file:
        file.attrs["format_version"] = "2.0"
    with pytest.raises(StorageError, match="newer twophase_fast"):
        Trajectory.open(run)
