"""Choose the embedded Fashion-MNIST subset from the full idx files.

    python -m twophase_fast.zoo.make_subset /usr/share/datasets/fashion-mnist

600 training and 100 test images of each of the ten classes, drawn without replacement by `SEED` and shuffled;
real images, unchanged. The same input gives the same file, byte for byte.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from twophase_fast.zoo.data import SUBSET_FILE
from twophase_fast.zoo.idx import read_idx_pair

SEED = 20_250_519
PER_CLASS = {"train": 600, "test": 100}


def choose(labels: np.ndarray, per_class: int, generator: np.random.Generator) -> np.ndarray:
    """Draw `per_class` indices of each class and shuffle them.

    Args:
        labels: Integer labels [N].
        per_class: Images to draw of each class that occurs.
        generator: Source of randomness.

    Returns:
        Indices into `labels`, [classes · per_class].
    """
    classes = np.unique(labels)
    drawn = [generator.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in classes]
    return generator.permutation(np.concatenate(drawn))


def make_subset(folder: Path, out: Path = SUBSET_FILE) -> None:
    """Write the subset of the idx files in `folder` to `out` (compressed .npz of uint8 arrays)."""
    generator = np.random.default_rng(SEED)
    arrays: dict[str, Any] = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = read_idx_pair(folder, prefix)
        index = choose(labels, PER_CLASS[split], generator)
        arrays |= {f"{split}_images": images[index], f"{split}_labels": labels[index]}
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the four idx files (.gz or not)")
    parser.add_argument("--out", type=Path, default=SUBSET_FILE)
    arguments = parser.parse_args()
    make_subset(arguments.folder, arguments.out)
