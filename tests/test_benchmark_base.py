"""This revision against another: checkout and cleaning up, both sides, and a row of each kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import base, readme, run
from benchmarks.child import ROOT, ChildError
from benchmarks.workloads import WORKLOADS
from twophase_fast import ops


@pytest.fixture
def repository(tmp_path):
    """A repository of two commits whose build makes a file, or does not."""
    folder = tmp_path / "repository"
    (folder / "twophase_fast").mkdir(parents=True)
    (folder / "twophase_fast" / "__init__.py").touch()
    git(folder, "init", "--quiet")
    (folder / "setup.py").write_text("open('twophase_fast/_C.so', 'w').close()\n")
    commit(folder, "builds")
    (folder / "setup.py").write_text("import sys; print('no compiler', file=sys.stderr)\n")
    commit(folder, "does not build")
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "--message", message)


def worktrees(folder: Path) -> int:
    return len(git(folder, "worktree", "list").splitlines())


def test_a_revision_is_checked_out_built_and_removed(repository):
    with base.checkout("HEAD~1", repository) as root:
        assert (root / "twophase_fast" / "_C.so").exists()
        assert git(root, "rev-parse", "HEAD") == base.full_name("HEAD~1", repository)
        assert worktrees(repository) == 2
    assert not root.parent.exists()
    assert worktrees(repository) == 1


def test_it_is_removed_after_an_error_too(repository):
    with pytest.raises(base.BaseError, match="was not built: no compiler"), base.checkout("HEAD", repository):
        pytest.fail("must not get here")
    with pytest.raises(KeyError), base.checkout("HEAD~1", repository):
        raise KeyError
    assert worktrees(repository) == 1
    assert git(repository, "status", "--porcelain") == ""


def test_an_unknown_revision_is_refused(repository):
    with (
        pytest.raises(base.BaseError, match="there is no revision 'nonsense'"),
        base.checkout("nonsense", repository),
    ):
        pytest.fail("must not get here")


def test_a_base_that_cannot_be_had_is_told_in_one_line(capsys):
    assert run.main(["--suite", "smoke", "--base", "nonsense"]) == 2
    assert "--base nonsense: git rev-parse failed: there is no revision 'nonsense'" in capsys.readouterr().err


def test_a_side_computes_with_the_package_it_was_given(tmp_path):
    row = WORKLOADS["smoke-mlp"]
    inputs = {"x": torch.randn(5, 9, generator=torch.Generator().manual_seed(0))}
    torch.save(inputs, tmp_path / "inputs.pt")
    with base.side(ROOT, 1) as side:
        side.ask(60, do="kernel", workload=row.name, precision="highest", target=str(tmp_path / "kernel.pt"))
        assert torch.load(tmp_path / "kernel.pt").shape == (8, 8, 10, 10)
        side.ask(60, do="op", op="gram", inputs=str(tmp_path / "inputs.pt"), target=str(tmp_path / "gram.pt"))
        assert torch.equal(torch.load(tmp_path / "gram.pt"), ops.gram(**inputs))
        assert side.ask(60, do="run")["seconds"] > 0
        with pytest.raises(ChildError, match="no_such_op"):
            side.ask(60, do="op", op="no_such_op", inputs=str(tmp_path / "inputs.pt"), target="")
    with base.side(tmp_path, 1) as side, pytest.raises(ChildError, match="not from"):
        side.ask(60, do="run")


class Fake:
    """A side whose calls take known times."""

    def __init__(self, name, seconds, order):
        self.name, self.seconds, self.order = name, iter(seconds), order

    def ask(self, **_):
        self.order.append(self.name)
        return {"seconds": next(self.seconds)}


def test_sides_take_turns_and_medians_are_compared():
    order = []
    found = base.alternate(Fake("a", [1, 5, 2], order), Fake("b", [4, 8, 3], order), seconds=0)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"seconds": 2, "base_seconds": 4, "ratio": 2, "rounds": 3}


@pytest.mark.parametrize("rows", ["test_kernel and smoke-mlp-highest", "test_op and gram-n65"])
def test_rows_against_this_very_checkout(rows, tmp_path):
    found = tmp_path / "rows.json"
    options = run._options(["--suite", "smoke", "--seconds", "0", "-k", rows])
    assert run._pytest(options, found, ROOT) == 0
    compared = json.loads(found.read_text())["base"]
    assert {row["status"] for row in compared} == {"timed"}
    assert all(row["error"] == row["base_error"] < 1e-5 for row in compared)
    assert f"| {compared[0]['name']} | highest |" in readme.base_table(compared, "main")
