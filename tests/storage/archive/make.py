"""Write the archived file of the current format version: `python make.py`. Never replace an existing one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from twophase_fast._matrix import from_matrix
from twophase_fast.storage import Trajectory, spec

FOLDER = Path(__file__).parent


def kernel(step: int, symmetric: bool = True) -> torch.Tensor:
    """A kernel of small integers, exact in every dtype."""
    matrix = torch.arange(36, dtype=torch.float32).reshape(6, 6) + step
    return from_matrix(matrix + matrix.T if symmetric else matrix, 2)


def parameters(step: int) -> dict[str, torch.Tensor]:
    """One tensor of each kind that needs special care."""
    return {
        "layer.weight": torch.arange(6, dtype=torch.float64).reshape(2, 3) / 8 + step,
        "layer.bias": torch.tensor([0.5, -0.0], dtype=torch.bfloat16),
        "mask": torch.tensor([True, False]),
        "count": torch.tensor(step),
        "wave": torch.tensor([1 + 2j], dtype=torch.complex64),
        "empty": torch.zeros(0, 4),
    }


def write(path: Path) -> None:
    """Write everything the format can hold."""
    probe = {"tokens": torch.arange(6).reshape(3, 2), "mask": torch.ones(3, 2)}
    with Trajectory.create(path, probe=probe, config={"seeds": [0, 1], "lr": 0.1}, attrs={"kind": "archive"}) as root:
        for step in (0, 10):
            root.append(step, kernel=kernel(step), metrics={"loss": 1 / (1 + step)}, parameters=parameters(step))
        root.append(5, metrics={"loss": float("nan"), "eval/acc": 0.25})
        root.append_rows("twins", [{"seed": 0, "name": "µ", "c": 1}, {"seed": 1, "name": "b", "c": 0.5}])
        child = root.child("main-seed0", attrs={"seed": 0})
        child.append(3, kernel=kernel(3, symmetric=False))
        child.child("trace").append(3, kernel=kernel(3)[..., 0, 0])
        child.child("diagonal").append(3, kernel=np.stack([np.eye(3), 2 * np.eye(3)], axis=2))


if __name__ == "__main__":
    target = FOLDER / f"v{spec.version_text()}.h5"
    if target.exists():
        sys.exit(f"{target.name} is there already; archived files never change")
    write(target)
