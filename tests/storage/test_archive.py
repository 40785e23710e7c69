"""Files written by every version so far stay readable, value by value."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from twophase_fast.storage import Trajectory, spec, verify

from .archive import make

ARCHIVE = sorted(make.FOLDER.glob("v*.h5"))


def test_the_current_version_is_archived():
    assert make.FOLDER / f"v{spec.version_text()}.h5" in ARCHIVE


@pytest.mark.parametrize("path", ARCHIVE, ids=lambda path: path.stem)
def test_archived_file_is_readable(path: Path):
    assert verify(path) == []
    check(Trajectory.open(path))


def test_what_is_written_now_reads_the_same(run: Path):
    make.write(run)
    check(Trajectory.open(run))


def check(root: Trajectory) -> None:
    assert root.attrs == {"kind": "archive"}
    assert root.config == {"seeds": [0, 1], "lr": 0.1}
    assert root.steps == root.parameter_steps == [0, 10]
    for step in root.steps:
        assert torch.equal(root.kernel(step), make.kernel(step))
        stored, expected = root.parameters(step), make.parameters(step)
        assert list(stored) == list(expected)
        for name, value in expected.items():
            assert stored[name].dtype == value.dtype
            assert torch.equal(stored[name], value)
        assert math.copysign(1, float(stored["layer.bias"][1])) == -1
    steps, losses = root.metric("loss")
    assert steps.tolist() == [0, 5, 10]
    assert losses[0] == 1
    assert math.isnan(losses[1])
    assert losses[2] == 1 / 11
    assert root.metrics == ["eval/acc", "loss"]
    twins = root.table("twins")
    assert {name: column.tolist() for name, column in twins.items()} == {
        "seed": [0, 1],
        "name": ["µ", "b"],
        "c": [1.0, 0.5],
    }
    assert list(root.probe) == ["tokens", "mask"]
    assert root.probe["tokens"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert set(root.provenance) >= {"time", "versions", "hardware", "git", "precision", "resumed"}
    child = root.child("main-seed0")
    assert child.attrs == {"seed": 0}
    assert torch.equal(child.kernel(3), make.kernel(3, symmetric=False))
    assert child.children == ["trace", "diagonal"]
    assert torch.equal(child.child("trace").kernel(3), make.kernel(3)[..., 0, 0])
    np.testing.assert_array_equal(child.child("diagonal").kernel(3)[..., 1], 2 * np.eye(3))
