"""Read the files of a trajectory into one index: small things at once, kernels and parameters when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from twophase_fast._types import StorageError
from twophase_fast.storage import spec, triangle
from twophase_fast.storage.arrays import read_json, read_tensors
from twophase_fast.storage.content import Header, NodePath, Probe

_REMEDY = "restore it from a copy, or delete it to go on without what it holds"
_NO_HDF5 = "it is no HDF5 file: is this the run's path? If it was a run, restore it from a copy"


@dataclass(frozen=True)
class KernelRef:
    """Where one kernel lies, and in what form."""

    file: Path
    group: str
    row: int
    shape: tuple[int, ...]
    dtype: str
    packed: bool


@dataclass(frozen=True)
class GroupRef:
    """A group of tensors in a file."""

    file: Path
    group: str


@dataclass
class Node:
    """All that the files say about one node."""

    attrs: dict[str, Any] = field(default_factory=dict)
    kernels: dict[int, KernelRef] = field(default_factory=dict)
    parameters: dict[int, GroupRef] = field(default_factory=dict)
    metrics: dict[str, list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, np.ndarray]]] = field(default_factory=dict)


@dataclass
class Index:
    """The union of the files read so far."""

    nodes: dict[NodePath, Node] = field(default_factory=lambda: {(): Node()})
    config: dict[str, Any] | None = None
    provenance: list[dict[str, Any]] = field(default_factory=list)
    probe: GroupRef | None = None
    keep: str = "all"
    references: tuple[int, ...] = ()


@contextmanager
def opened(path: Path, place: str = "/") -> Iterator[h5py.File]:
    """Open a published file for reading; whatever goes wrong inside names the file and the place in it.

    Args:
        path: File.
        place: HDF5 path that is about to be read.

    Yields:
        The open file.

    Raises:
        StorageError: Missing, truncated, corrupt, or not laid out as FORMAT.md says.
    """
    try:
        # Published files are never written again, so no lock is needed (network file systems may have none).
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"{path} is missing; if a writer has just packed the trajectory, open it again") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        if path.is_dir():
            raise StorageError(f"cannot read {path}: it is a folder; give a run file or a folder of parts") from error
        foreign = path.parent.suffix != spec.PARTS_SUFFIX and not h5py.is_hdf5(path)
        raise StorageError(f"cannot read {path} at {place}: {error}; {_NO_HDF5 if foreign else _REMEDY}") from error


def read_header(path: Path) -> Header:
    """Read which run and version a file belongs to.

    Args:
        path: File.

    Returns:
        The header without config, provenance and probe.

    Raises:
        StorageError: Not a trajectory, or of a newer major version.
    """
    with opened(path) as file:
        return _header(file, path)


def _header(file: h5py.File, path: Path) -> Header:
    if file.attrs.get("format") != spec.FORMAT:
        raise StorageError(f"{path} is an HDF5 file but not a trajectory (attribute 'format' is not {spec.FORMAT!r})")
    major = int(str(file.attrs["format_version"]).split(".")[0])
    if major > spec.VERSION[0]:
        raise StorageError(
            f"{path} has format version {file.attrs['format_version']}, this package reads up to "
            f"{spec.VERSION[0]}.x; install a newer twophase_fast"
        )
    return Header(
        run_id=str(file.attrs["run_id"]),
        part=str(file.attrs["part"]),
        overwrites=bool(file.attrs["overwrites"]),
        keep=str(file.attrs["keep"]),
        references=tuple(int(step) for step in file.attrs["references"]),
        packed_parts=tuple(read_json(file, spec.PACKED_PARTS)),
    )


def scan(path: Path, index: Index) -> Header:
    """Add what a file holds to an index.

    Args:
        path: Packed file or part.
        index: Grows by the content of the file.

    Returns:
        The header of the file.

    Raises:
        StorageError: The file cannot be read, or repeats a step that another file holds.
    """
    with opened(path) as file:
        header = _header(file, path)
        index.keep, index.references = header.keep, header.references
        if spec.CONFIG in file:
            index.config = read_json(file, spec.CONFIG)
        if spec.PROVENANCE in file:
            index.provenance += read_json(file, spec.PROVENANCE)
        if spec.PROBE in file:
            index.probe = GroupRef(path, spec.PROBE)
        _scan_node(file, (), path, index)
    return header


def _scan_node(group: h5py.Group, place: NodePath, path: Path, index: Index) -> None:
    node = index.nodes.setdefault(place, Node())
    if spec.ATTRS in group:
        node.attrs.update(read_json(group, spec.ATTRS))
    if spec.KERNELS in group:
        _scan_kernels(group[spec.KERNELS], path, node)
    for link in group.get(spec.PARAMETERS, ()):
        if link.isdigit():
            _add(
                node.parameters,
                int(link),
                GroupRef(path, f"{group.name.rstrip('/')}/{spec.PARAMETERS}/{link}"),
                "parameters",
                path,
            )
    for link, metric in group.get(spec.METRICS, {}).items():
        piece = (metric[spec.STEP][()], metric[spec.VALUE][()])
        node.metrics.setdefault(spec.decode_name(link), []).append(piece)
    for link, table in group.get(spec.TABLES, {}).items():
        node.tables.setdefault(spec.decode_name(link), []).append(_read_columns(table))
    for link, child in group.get(spec.CHILDREN, {}).items():
        _scan_node(child, (*place, spec.decode_name(link)), path, index)


def _scan_kernels(group: h5py.Group, path: Path, node: Node) -> None:
    shape = tuple(int(length) for length in group.attrs["shape"])
    packed = group.attrs["packing"] == "upper_triangle"
    dtype = group[spec.KERNEL].dtype.name
    for row, step in enumerate(group[spec.STEP][()].tolist()):
        _add(node.kernels, step, KernelRef(path, group.name, row, shape, dtype, packed), "kernel", path)


def _add(known: dict, step: int, reference: Any, what: str, path: Path) -> None:
    if step in known:
        raise StorageError(f"{path} and {known[step].file} both hold the {what} of step {step}; remove one of them")
    known[step] = reference


def _read_columns(table: h5py.Group) -> dict[str, np.ndarray]:
    columns = {}
    for link, dataset in table.items():
        if link != spec.ROW:
            text = h5py.check_string_dtype(dataset.dtype) is not None
            columns[spec.decode_name(link)] = dataset.asstr()[()] if text else dataset[()]
    return columns


def load_stored(ref: KernelRef) -> np.ndarray:
    """Read a kernel in its stored form (a triangle where it is packed).

    Args:
        ref: Where it lies.

    Returns:
        The stored array.

    Raises:
        StorageError: Missing or corrupt (the checksum does not match).
    """
    with opened(ref.file, f"{ref.group}/{spec.KERNEL}[{ref.row}]") as file:
        return file[ref.group][spec.KERNEL][ref.row]


def load_kernel(ref: KernelRef) -> np.ndarray:
    """Read a kernel in its own shape.

    Args:
        ref: Where it lies.

    Returns:
        `[N, M]`, `[N, M, C]` or `[N, M, C, C]`.

    Raises:
        StorageError: Missing or corrupt (the checksum does not match).
    """
    stored = load_stored(ref)
    return triangle.unpack(stored, ref.shape) if ref.packed else stored


def load_tensors(ref: GroupRef) -> dict[str, torch.Tensor]:
    """Read a group of named tensors.

    Args:
        ref: Where it lies.

    Returns:
        Name to tensor, in the order written.

    Raises:
        StorageError: Missing or corrupt.
    """
    with opened(ref.file, ref.group) as file:
        return read_tensors(file[ref.group])


def load_probe(ref: GroupRef) -> Probe:
    """Read the probe set in the structure it was given: tensor, tuple or dict.

    Args:
        ref: Where it lies.

    Returns:
        The probe set.

    Raises:
        StorageError: Missing or corrupt.
    """
    with opened(ref.file, ref.group) as file:
        structure = str(file[ref.group].attrs["structure"])
        tensors = read_tensors(file[ref.group]["tensors"])
    if structure == "tensor":
        return tensors["0"]
    return tensors if structure == "dict" else tuple(tensors.values())
