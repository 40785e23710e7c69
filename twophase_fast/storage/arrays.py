"""Tensors and plain values to HDF5 and back, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import h5py
import numpy as np
import torch

from twophase_fast._types import InputError
from twophase_fast.storage import spec

TEXT = h5py.string_dtype("utf-8")
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_DIRECT = {
    torch.float16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip


def plain(value: Any, where: str) -> Any:
    """Reduce nested values to what JSON holds: dict, list, str, int, float, bool, None.

    Args:
        value: Mappings, sequences, paths and NumPy or torch scalars are converted.
        where: Path of the value, for the message.

    Returns:
        The same values in plain types; tuples become lists.

    Raises:
        InputError: A value of another type.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)):
        return value.tolist()
    raise InputError(
        f"{where} is a {type(value).__name__}, which cannot be stored; expected numbers, strings, lists and dicts"
    )


def write_json(group: h5py.Group, name: str, value: Any) -> None:
    """Write plain values as one UTF-8 string."""
    group.create_dataset(name, data=json.dumps(value, ensure_ascii=False), dtype=TEXT)


def read_json(group: h5py.Group, name: str) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(group[name].asstr()[()])


def create(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, chunk=None) -> h5py.Dataset:
    """Create a data set with an explicit dtype, checksummed wherever HDF5 can chunk it."""
    if shape == () or 0 in shape:
        return group.create_dataset(name, shape=shape, dtype=dtype)
    checksum = dtype is not TEXT  # a checksum would cover only the pointers of a text column
    chunk = chunk or spec.chunk_shape(shape, np.dtype(dtype).itemsize)
    return group.create_dataset(name, shape=shape, dtype=dtype, chunks=chunk, fletcher32=checksum)


def dimension(group: h5py.Group, name: str, length: int) -> h5py.Dataset:
    """Dimension scale without coordinates: takes no space. Made once per group and name."""
    if name not in group:
        scale = group.create_dataset(name, shape=(length,), dtype="f4")
        scale.make_scale(spec.DIMENSION_ONLY % length)
    return group[name]


def label(dataset: h5py.Dataset, scales: list[h5py.Dataset]) -> None:
    """Attach one dimension scale per axis."""
    for axis, scale in enumerate(scales):
        dataset.dims[axis].attach_scale(scale)


def write_tensors(group: h5py.Group, scales: h5py.Group, tensors: Mapping[str, torch.Tensor], what: str) -> None:
    """Write named tensors of any dtype; axis i of length n gets the scale `axis<i>_<n>`.

    Args:
        group: Group that receives one data set per tensor.
        scales: Group that holds the shared scales.
        tensors: Tensors on any device.
        what: What they are, for messages.

    Raises:
        InputError: A value is not a dense tensor.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
            raise InputError(f"{what} {name!r} is not a dense tensor but {type(tensor).__name__}; cannot store it")
        array = _to_bits(tensor.detach())
        dataset = create(group, spec.encode_name(name, what), array.shape, array.dtype)
        dataset[...] = array
        dataset.attrs["torch_dtype"] = str(tensor.dtype).removeprefix("torch.")
        label(dataset, [dimension(scales, f"axis{i}_{n}", n) for i, n in enumerate(array.shape)])


def read_tensors(group: h5py.Group) -> dict[str, torch.Tensor]:
    """Read what `write_tensors` wrote, in the order it was written."""
    return {spec.decode_name(link): _from_bits(group[link]) for link in group}


def _to_bits(tensor: torch.Tensor) -> np.ndarray:
    """Same bytes in a dtype that HDF5 and every reader knows; complex numbers get a last axis of 2."""
    tensor = tensor.cpu().resolve_conj().resolve_neg()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.dtype not in _DIRECT:
        tensor = tensor.contiguous().view(_BITS[tensor.dtype.itemsize])
    return tensor.numpy()


def _from_bits(dataset: h5py.Dataset) -> torch.Tensor:
    dtype = getattr(torch, dataset.attrs["torch_dtype"])
    if dataset.size == 0:  # the strides of empty arrays are not what views need
        return torch.empty(dataset.shape[:-1] if dtype.is_complex else dataset.shape, dtype=dtype)
    tensor = torch.from_numpy(np.asarray(dataset[()]))
    if dtype.is_complex:
        return torch.view_as_complex(tensor)
    return tensor if tensor.dtype == dtype else tensor.view(dtype)
