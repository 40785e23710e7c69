"""Reader of the idx format (MNIST, Fashion-MNIST): big-endian header, then unsigned bytes.

Header: two zero bytes, the type (8 = unsigned byte), the number of axes k, then k sizes as 32-bit integers.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from twophase_fast._types import StorageError

_UNSIGNED_BYTE = 8


def _content(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as file:
                return file.read()
        return path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise StorageError(
            f"{path} is truncated or corrupt: {path.stat().st_size} bytes found do not decompress ({error}); "
            "fetch the file again"
        ) from error


def _locate(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise StorageError(f"{folder / name}[.gz] is missing; expected the idx files of the data set in {folder}")


def read_idx(path: str | Path, axes: int) -> np.ndarray:
    """Read one idx file of unsigned bytes, plain or gzip-compressed (by its `.gz` suffix).

    Args:
        path: The file.
        axes: Number of axes the array must have: 3 for images, 1 for labels.

    Returns:
        A uint8 array with `axes` axes.

    Raises:
        StorageError: The file is missing, is not an idx file of unsigned bytes with that many axes, or its
            length is not what its header says.
    """
    path = Path(path)
    if not path.is_file():
        raise StorageError(f"{path} is missing; expected an idx file with {axes} axes")
    content = _content(path)
    start = 4 + 4 * axes
    magic = bytes((0, 0, _UNSIGNED_BYTE, axes))
    if content[:4] != magic:
        raise StorageError(
            f"{path} is not an idx file of unsigned bytes with {axes} axes: it starts with "
            f"{content[:4].hex() or 'nothing'}, expected {magic.hex()}"
        )
    if len(content) < start:
        raise StorageError(f"{path} is truncated: {len(content)} bytes found, its header alone has {start}")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) != start + math.prod(shape):
        raise StorageError(
            f"{path} is truncated or corrupt: its header announces shape {shape}, expected "
            f"{start + math.prod(shape)} bytes, found {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_idx_pair(folder: str | Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images and labels of one split: `prefix` is "train" or "t10k".

    Returns:
        Images uint8 [N, H, W] and labels uint8 [N].

    Raises:
        StorageError: A file is missing or corrupt, or the two disagree about N.
    """
    folder = Path(folder)
    images_path = _locate(folder, f"{prefix}-images-idx3-ubyte")
    labels_path = _locate(folder, f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise StorageError(
            f"{images_path} holds {len(images)} images but {labels_path} {len(labels)} labels; "
            "they must belong to the same split"
        )
    return images, labels
