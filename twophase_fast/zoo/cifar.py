"""Reader of CIFAR-10's binary version: records of one label byte and 3·32·32 pixel bytes, channel-major."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from twophase_fast._types import StorageError

PIXELS = 3 * 32 * 32
RECORDS_PER_FILE = 10_000
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILES = ("test_batch.bin",)


def read_cifar10_file(path: str | Path, records: int = RECORDS_PER_FILE) -> tuple[np.ndarray, np.ndarray]:
    """Read one binary batch.

    Args:
        path: The file.
        records: Number of images it must hold.

    Returns:
        Images uint8 [records, 3, 32, 32] and labels uint8 [records].

    Raises:
        StorageError: The file is missing, has another length, or holds a label above 9.
    """
    path, expected = Path(path), records * (1 + PIXELS)
    if not path.is_file():
        raise StorageError(
            f"{path} is missing; expected {expected} bytes of CIFAR-10's binary version "
            "(cifar-10-binary.tar.gz, unpacked)"
        )
    found = path.stat().st_size
    if found != expected:
        raise StorageError(f"{path} is truncated or corrupt: expected {expected} bytes, found {found}")
    data = np.fromfile(path, np.uint8).reshape(records, 1 + PIXELS)
    labels = data[:, 0]
    if labels.max(initial=0) > 9:
        raise StorageError(
            f"{path} is corrupt: record {int((labels > 9).argmax())} has label {labels.max()}, expected 0 to 9"
        )
    return data[:, 1:].reshape(records, 3, 32, 32), labels


def read_cifar10(folder: str | Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read one split from a folder holding the .bin files, or a `cifar-10-batches-bin` folder with them.

    Returns:
        Images uint8 [N, 3, 32, 32] and labels uint8 [N]; N is 50,000 or 10,000.

    Raises:
        StorageError: A file is missing or corrupt.
    """
    folder = Path(folder)
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    parts = [read_cifar10_file(folder / name, RECORDS_PER_FILE) for name in (TRAIN_FILES if train else TEST_FILES)]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])
