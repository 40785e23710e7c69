"""Keep policies: which kernels are stored, and which distances in place of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from twophase_fast._types import InputError, StorageError
from twophase_fast.measures import kernel_distance
from twophase_fast.storage import Trajectory

from .helpers import symmetric_kernel

KERNELS = {step: symmetric_kernel(step) for step in (0, 10, 20, 30)}


def exact(first: int, second: int) -> float:
    return kernel_distance(KERNELS[first], KERNELS[second])


def write(run: Path, **policy) -> None:
    with Trajectory.create(run, **policy) as t:
        for step, kernel in KERNELS.items():
            t.append(step, kernel=kernel)


def test_metrics_keeps_distances_from_the_first_and_the_previous_kernel(run: Path):
    write(run, keep="metrics")
    t = Trajectory.open(run)
    assert t.steps == []
    distances = t.kernel_distances()
    assert distances.shape == (4, 4)
    for i, j in [(0, 10), (0, 20), (0, 30), (10, 20), (20, 30)]:
        assert distances[i // 10, j // 10] == distances[j // 10, i // 10] == pytest.approx(exact(i, j), rel=1e-12)
    assert np.isnan(distances[1, 3])
    with pytest.raises(StorageError, match="no kernel"):
        t.kernel(0)


def test_references_keeps_their_kernels_and_distances_to_them(run: Path):
    write(run, keep="references", references=[10, 99])
    t = Trajectory.open(run)
    assert t.steps == [10]
    assert torch.equal(t.kernel(10), KERNELS[10])
    distances = t.kernel_distances()
    for i, j in [(0, 10), (0, 30), (10, 20), (10, 30), (20, 30)]:
        assert distances[i // 10, j // 10] == pytest.approx(exact(i, j), rel=1e-12)


def test_policy_holds_for_children_and_after_a_resume(run: Path):
    t = Trajectory.create(run, keep="references", references=[0])
    t.child("c").append(0, kernel=KERNELS[0])
    t.child("c").append(10, kernel=KERNELS[10])
    t._store.abandon()  # as a kill would
    with Trajectory.append_to(run) as t:
        child = t.child("c")
        with pytest.raises(InputError, match="already"):
            child.append(10, kernel=KERNELS[10])
        child.append(20, kernel=KERNELS[20])
    child = Trajectory.open(run).child("c")
    assert child.steps == [0]
    distances = child.kernel_distances()
    assert distances[0, 2] == pytest.approx(exact(0, 20), rel=1e-12)
    assert np.isnan(distances[1, 2])  # the previous kernel was in memory only


def test_kernels_of_another_form_are_refused_although_none_is_stored(run: Path):
    with Trajectory.create(run, keep="metrics") as t:
        t.append(0, kernel=KERNELS[0])
        with pytest.raises(InputError, match="child"):
            t.append(1, kernel=torch.ones(2, 2))
