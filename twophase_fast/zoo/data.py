"""Image data for experiments: an embedded subset of Fashion-MNIST, full Fashion-MNIST, CIFAR-10.

Nothing is downloaded: the subset ships with the package, the others are read from a folder.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from twophase_fast._types import InputError, StorageError
from twophase_fast.zoo.cifar import read_cifar10
from twophase_fast.zoo.idx import read_idx_pair

SUBSET_FILE = Path(__file__).parent / "embedded" / "fashion_mnist_subset.npz"
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Arrays = tuple[np.ndarray, np.ndarray]


class Split(NamedTuple):
    """Images and labels of one split; a plain `(inputs, targets)` pair wherever one is wanted.

    Attributes:
        inputs: float32 [N, channels, H, W]; per channel zero mean and unit variance over the full
            training set.
        targets: int64 [N].
    """

    inputs: torch.Tensor
    targets: torch.Tensor


class Source(NamedTuple):
    """A data set this package can read.

    Attributes:
        read: Function of (folder, train) returning uint8 images [N, channels, H, W] or [N, H, W] and
            labels [N].
        classes: Names of the labels 0, 1, ...
        mean: Per channel, of pixels scaled to [0, 1], over the full training set.
        std: Likewise.
        folder: What `data_dir` must hold; None for embedded data.
    """

    read: Callable[[Path, bool], Arrays]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    folder: str | None

    @property
    def black(self) -> tuple[float, ...]:
        """Value of a black pixel after normalisation, per channel: what random crops are padded with."""
        return tuple(-m / s for m, s in zip(self.mean, self.std))


def _read_subset(folder: Path, train: bool) -> Arrays:
    split = "train" if train else "test"
    try:
        with np.load(SUBSET_FILE) as arrays:
            return arrays[f"{split}_images"], arrays[f"{split}_labels"]
    except FileNotFoundError as error:
        raise StorageError(f"{SUBSET_FILE} is missing; the installation is incomplete, install it again") from error
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError) as error:
        raise StorageError(f"{SUBSET_FILE} is corrupt ({error}); install the package again") from error


def _read_fashion(folder: Path, train: bool) -> Arrays:
    return read_idx_pair(folder, "train" if train else "t10k")


SOURCES: dict[str, Source] = {
    "fashion-mnist-subset": Source(_read_subset, FASHION_CLASSES, (0.2860,), (0.3530,), None),
    "fashion-mnist": Source(
        _read_fashion,
        FASHION_CLASSES,
        (0.2860,),
        (0.3530,),
        "train-images-idx3-ubyte[.gz] and the three others",
    ),
    "cifar10": Source(
        read_cifar10,
        CIFAR_CLASSES,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        "data_batch_1.bin to data_batch_5.bin and test_batch.bin (binary version)",
    ),
}


def _normalise(images: np.ndarray, labels: np.ndarray, source: Source) -> Split:
    pixels = torch.from_numpy(images.astype(np.float32)).div_(255)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (source.mean, source.std))
    return Split(pixels.sub_(mean).div_(std), torch.from_numpy(labels.astype(np.int64)))


def load(name: str = "fashion-mnist-subset", data_dir: str | Path | None = None) -> tuple[Split, Split]:
    """Read a data set, normalised per channel with the statistics of its full training set.

    Args:
        name: A key of `SOURCES`: "fashion-mnist-subset" (embedded: 6,000 + 1,000 images), "fashion-mnist" or
            "cifar10".
        data_dir: Folder with the files; not needed for embedded data.

    Returns:
        The training and the test split.

    Raises:
        InputError: The name is not known, or `data_dir` is needed and was not given.
        StorageError: A file is missing, truncated or corrupt.
    """
    if name not in SOURCES:
        raise InputError(f"unknown data {name!r}; known: {', '.join(SOURCES)}")
    source = SOURCES[name]
    if source.folder and data_dir is None:
        raise InputError(
            f"data {name!r} is read from a folder: give its path with data_dir (--data-dir); it must hold "
            f"{source.folder}"
        )
    folder = Path(data_dir) if data_dir is not None else SUBSET_FILE.parent
    if source.folder and not folder.is_dir():
        raise StorageError(f"data folder {folder} does not exist; it must hold {source.folder}")
    train, test = (_normalise(*source.read(folder, part), source) for part in (True, False))
    return train, test
