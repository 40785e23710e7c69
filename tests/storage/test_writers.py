"""Writers of a run that is there: what they may replace, how they go on, and who may read or write beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from twophase_fast._types import StorageError
from twophase_fast.storage import Trajectory, verify
from twophase_fast.storage.store import folder_of, parts_of

from .helpers import contents, write


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
