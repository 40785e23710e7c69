"""Missing, foreign and damaged files are named, and what is wrong in them is found."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from twophase_fast._types import StorageError
from twophase_fast.storage import Trajectory, verify
from twophase_fast.storage.store import folder_of, parts_of

from .helpers import write


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


def test_a_folder_that_holds_runs_is_no_run(tmp_path: Path):
    with pytest.raises(StorageError, match="it is a folder; give a run file"):
        Trajectory.open(tmp_path)


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
    advice = "it is no HDF5 file" if damage in {"empty", "text"} else ""
    for attempt in (Trajectory.open, Trajectory.append_to):
        with pytest.raises(StorageError, match=rf"run.h5.*{advice}") as caught:
            attempt(run)
        assert not (advice and "delete" in str(caught.value))
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
