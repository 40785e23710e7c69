"""Check every byte of a stored trajectory against FORMAT.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from twophase_fast._types import StorageError
from twophase_fast.storage import spec, triangle
from twophase_fast.storage.reader import Index, opened, read_header, scan
from twophase_fast.storage.store import Store, folder_of, part_number, parts_of


def verify(path: str | os.PathLike[str]) -> list[str]:
    """Read everything a trajectory holds and list what is wrong with it.

    Checks that every file opens and is a trajectory; that every data set can be read (HDF5 compares the fletcher32
    checksums); that shapes agree with their steps and labels; that steps increase; and that the files of the run
    agree with one another.

    Args:
        path: `run.h5` or `run.h5.parts`.

    Returns:
        Problems, each naming the file and the HDF5 path; empty if there are none.

    Raises:
        StorageError: There is nothing at `path`.
    """
    files = _existing_files(Path(path))
    problems = [problem for file in files for problem in _problems_of_file(file)]
    if not problems:
        problems += _problems_together(Path(path))
    return problems


def _existing_files(path: Path) -> list[Path]:
    base = path.with_name(path.name.removesuffix(spec.PARTS_SUFFIX))
    files = [*([base] if base.is_file() else []), *parts_of(base)]
    if not files:
        raise StorageError(f"there is no trajectory at {path}")
    return files


def _problems_together(path: Path) -> list[str]:
    try:
        Store.open(path)
    except StorageError as error:
        return [str(error)]
    base = path.with_name(path.name.removesuffix(spec.PARTS_SUFFIX))
    packed = read_header(base).packed_parts if base.is_file() else ()
    present = {part_number(name) for name in [*packed, *(part.name for part in parts_of(base))]}
    missing = sorted(set(range(1, max(present, default=0) + 1)) - present)
    return [f"{folder_of(base)}: part {number} is missing" for number in missing]


def _problems_of_file(file: Path) -> list[str]:
    try:
        scan(file, Index())
        with opened(file) as handle:
            return [f"{file} at {place}: {problem}" for place, problem in _walk(handle)]
    except StorageError as error:
        return [str(error)]


def _walk(group: h5py.Group) -> Iterator[tuple[str, str]]:
    for item in group.values():
        if isinstance(item, h5py.Group):
            yield from _walk(item)
        else:
            yield from ((item.name, problem) for problem in _problems_of_dataset(item))
    if _is_series(group):
        yield from ((group.name, problem) for problem in _problems_of_series(group))


def _is_series(group: h5py.Group) -> bool:
    """Kernels or a metric: a scale of steps (a table or a state dict may hold something else called step)."""
    steps = group.get(spec.STEP)
    return isinstance(steps, h5py.Dataset) and steps.is_scale


def _problems_of_dataset(dataset: h5py.Dataset) -> Iterator[str]:
    try:
        for piece in dataset.iter_chunks() if dataset.chunks else [()]:
            dataset[piece]
    except (OSError, RuntimeError) as error:
        yield f"cannot be read: {error}"
    if dataset.is_scale or dataset.ndim == 0:
        return
    for axis, dimension in enumerate(dataset.dims):
        if len(dimension) != 1 or dimension[0].shape != (dataset.shape[axis],):
            yield f"axis {axis} has no dimension scale of its length"


def _problems_of_series(group: h5py.Group) -> Iterator[str]:
    steps = group[spec.STEP][()]
    if np.any(np.diff(steps) <= 0) or np.any(steps < 0):
        yield "steps do not increase"
    if spec.KERNEL not in group:
        return
    shape = tuple(int(length) for length in group.attrs["shape"])
    row = triangle.entries(shape) if group.attrs["packing"] == "upper_triangle" else shape
    if group[spec.KERNEL].shape != (len(steps), *row):
        yield f"kernels have shape {group[spec.KERNEL].shape}, expected {(len(steps), *row)}"
