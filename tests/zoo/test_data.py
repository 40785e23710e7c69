import gzip
import struct

import numpy as np
import pytest
import torch

from twophase_fast import zoo
from twophase_fast._types import InputError, StorageError
from twophase_fast.zoo import cifar, data, make_subset
from twophase_fast.zoo.idx import read_idx, read_idx_pair

RNG = np.random.default_rng(0)


def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(folder, counts=(30, 20), compress=True):
    for prefix, n in zip(("train", "t10k"), counts):
        arrays = {
            f"{prefix}-images-idx3-ubyte": RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8),
            f"{prefix}-labels-idx1-ubyte": np.arange(n, dtype=np.uint8) % 10,
        }
        for name, array in arrays.items():
            content = idx_bytes(array)
            path = folder / (name + ".gz" * compress)
            path.write_bytes(gzip.compress(content) if compress else content)


def cifar_bytes(n):
    labels = (np.arange(n, dtype=np.uint8) % 10)[:, None]
    return np.concatenate([labels, RNG.integers(0, 256, (n, cifar.PIXELS), dtype=np.uint8)], 1)


def test_the_embedded_subset_is_balanced_normalised_and_real_sized():
    train, test = zoo.load()
    assert train.inputs.shape == (6000, 1, 28, 28)
    assert test.inputs.shape == (1000, 1, 28, 28)
    assert train.inputs.dtype == torch.float32
    assert train.targets.dtype == torch.int64
    assert train.targets.bincount().tolist() == [600] * 10
    assert test.targets.bincount().tolist() == [100] * 10
    assert abs(train.inputs.mean()) < 0.05
    assert abs(train.inputs.std() - 1) < 0.05
    assert len(train.inputs.flatten(1).unique(dim=0)) > 5990  # real images: hardly two alike


def test_the_subset_ships_with_its_licence():
    text = (data.SUBSET_FILE.parent / "LICENSE.fashion-mnist").read_text()
    assert "Zalando SE" in text
    assert "Permission is hereby granted" in text
    assert data.SUBSET_FILE.stat().st_size < 4_000_000


def test_the_subset_script_gives_the_same_file_every_time(tmp_path, monkeypatch):
    write_fashion(tmp_path, (400, 200))
    monkeypatch.setattr(make_subset, "PER_CLASS", {"train": 6, "test": 3})
    for name in ("a.npz", "b.npz"):
        make_subset.make_subset(tmp_path, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as chosen:
        images, labels = read_idx_pair(tmp_path, "train")
        assert np.bincount(chosen["train_labels"]).tolist() == [6] * 10
        rows = {image.tobytes(): label for image, label in zip(images, labels)}
        assert [rows[i.tobytes()] for i in chosen["train_images"]] == chosen["train_labels"].tolist()


@pytest.mark.parametrize("compress", [True, False])
def test_full_fashion_mnist_is_read_from_a_folder(tmp_path, compress):
    write_fashion(tmp_path, compress=compress)
    train, test = zoo.load("fashion-mnist", tmp_path)
    images, labels = read_idx_pair(tmp_path, "train")
    assert (len(train.inputs), len(test.inputs)) == (30, 20)
    restored = train.inputs[:, 0] * 0.3530 + 0.2860
    assert torch.equal((restored * 255).round().byte(), torch.from_numpy(images.copy()))
    assert train.targets.tolist() == labels.tolist()


@pytest.mark.parametrize("nested", [True, False])
def test_cifar10_is_read_from_a_folder(tmp_path, monkeypatch, nested):
    monkeypatch.setattr(cifar, "RECORDS_PER_FILE", 7)
    folder = tmp_path / "cifar-10-batches-bin" if nested else tmp_path
    folder.mkdir(exist_ok=True)
    batches = [cifar_bytes(7) for _ in range(6)]
    for name, content in zip(cifar.TRAIN_FILES + cifar.TEST_FILES, batches):
        (folder / name).write_bytes(content.tobytes())
    train, test = zoo.load("cifar10", tmp_path)
    assert train.inputs.shape == (35, 3, 32, 32)
    assert test.inputs.shape == (7, 3, 32, 32)
    pixel = batches[1][2, 1 + 2 * 1024 + 5 * 32 + 9]  # file 1, record 2, channel 2, row 5, column 9
    assert train.inputs[9, 2, 5, 9] == pytest.approx((pixel / 255 - 0.4465) / 0.2616, rel=1e-5)


def test_a_missing_file_is_named(tmp_path):
    write_fashion(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(StorageError, match=r"t10k-labels-idx1-ubyte\[\.gz\] is missing"):
        zoo.load("fashion-mnist", tmp_path)
    with pytest.raises(StorageError, match=r"data_batch_1\.bin is missing; expected 30730000 bytes"):
        zoo.load("cifar10", tmp_path)
    with pytest.raises(StorageError, match="does not exist"):
        zoo.load("cifar10", tmp_path / "nowhere")


def test_truncated_files_say_what_was_expected_and_found(tmp_path):
    path = tmp_path / "x"
    content = idx_bytes(np.zeros((5, 4, 4), np.uint8))
    path.write_bytes(content[:-3])
    with pytest.raises(StorageError, match=r"shape \(5, 4, 4\), expected 96 bytes, found 93"):
        read_idx(path, 3)
    path.write_bytes(content[:9])
    with pytest.raises(StorageError, match="9 bytes found, its header alone has 16"):
        read_idx(path, 3)
    path.write_bytes(b"")
    with pytest.raises(StorageError, match="starts with nothing"):
        read_idx(path, 3)
    path.write_bytes(cifar_bytes(4).tobytes()[:-1])
    with pytest.raises(StorageError, match="expected 12292 bytes, found 12291"):
        cifar.read_cifar10_file(path, 4)


def test_corrupt_files_are_refused(tmp_path):
    path = tmp_path / "x.gz"
    packed = gzip.compress(idx_bytes(RNG.integers(0, 256, (5, 4, 4), dtype=np.uint8)))
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 255
    for content in (packed[:-12], b"not gzip at all", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(StorageError, match="truncated or corrupt"):
            read_idx(path, 3)
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(np.zeros(5, np.uint8)))
    with pytest.raises(StorageError, match="not an idx file of unsigned bytes with 3 axes: it starts with 00000801"):
        read_idx(path, 3)
    records = cifar_bytes(4)
    records[2, 0] = 77
    path.write_bytes(records.tobytes())
    with pytest.raises(StorageError, match="record 2 has label 77"):
        cifar.read_cifar10_file(path, 4)


def test_images_and_labels_of_different_splits_are_refused(tmp_path):
    write_fashion(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes((tmp_path / "t10k-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(StorageError, match=r"30 images but .* 20 labels"):
        zoo.load("fashion-mnist", tmp_path)


def test_a_broken_installation_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "SUBSET_FILE", tmp_path / "subset.npz")
    with pytest.raises(StorageError, match="is missing; the installation is incomplete"):
        zoo.load()
    data.SUBSET_FILE.write_bytes(b"PK nonsense")
    with pytest.raises(StorageError, match="is corrupt"):
        zoo.load()


def test_unknown_data_and_a_missing_folder_argument():
    with pytest.raises(InputError, match="unknown data 'mnist'; known: fashion-mnist-subset"):
        zoo.load("mnist")
    with pytest.raises(InputError, match="--data-dir"):
        zoo.load("cifar10")
