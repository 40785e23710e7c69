"""Checkpoints: a nested state (weights, optimizer, scheduler, random generators) in one safetensors file.

Tensors are stored as safetensors; the structure around them, and anything the caller wants to note, as JSON in the
file's metadata. A file appears under its name only once it is complete and on disk.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from twophase_fast._types import InputError, StorageError

_FORMAT = "twophase_fast checkpoint 1"
_TEMPORARY = ".tmp"


def save_checkpoint(path: str | Path, state: Any, *, note: Mapping[str, Any] | None = None) -> Path:
    """Write a nested state to one file, atomically: a kill or a full disk leaves the old file, or none.

    Args:
        path: Written or replaced.
        state: Dicts, lists, tuples, numbers, strings, None, tensors and NumPy arrays, nested in any way. Tensors that
            share memory exactly (tied weights) are stored once; memory layouts (channels_last) come back.
        note: Plain values for people and programs, such as step and seed; `read_note` gives them without the tensors.

    Returns:
        The path.

    Raises:
        InputError: Something in `state` cannot be stored; the message says where it is.
        StorageError: The file cannot be written.
    """
    path = Path(path)
    packer = _Packer()
    metadata = {"format": _FORMAT, "tree": json.dumps(packer.pack(state, "state")), "note": json.dumps(note or {})}
    temporary = path.with_name(f".{path.name}{_TEMPORARY}")
    try:
        save_file(packer.tensors, temporary, metadata)
        _synchronise(temporary)
        os.replace(temporary, path)
        _synchronise(path.parent)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write the checkpoint {path}: {error}") from error
    return path


def load_checkpoint(path: str | Path) -> Any:
    """Return the state that `save_checkpoint` wrote, tensors on the CPU.

    Raises:
        StorageError: The file is missing, truncated, or not such a checkpoint.
    """
    metadata, tensors = _read(Path(path), with_tensors=True)
    return _unpack(json.loads(metadata["tree"]), tensors)


def read_note(path: str | Path) -> dict[str, Any]:
    """Return the `note` of a checkpoint without reading its tensors.

    Raises:
        StorageError: The file is missing, truncated, or not such a checkpoint.
    """
    return json.loads(_read(Path(path), with_tensors=False)[0]["note"])


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, with_tensors: bool) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise StorageError(f"{path} is a safetensors file but not a {_FORMAT!r}")
            return metadata, {key: file.get_tensor(key) for key in file.keys()} if with_tensors else {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise StorageError(f"checkpoint {path} is missing") from error
    except SafetensorError as error:
        raise StorageError(f"checkpoint {path} is truncated or corrupt ({error}); remove it") from error


class _Packer:
    """Turns a nested state into JSON, collecting its tensors."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._seen: dict[tuple, str] = {}

    def pack(self, value: Any, place: str) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, torch.Tensor):
            return self._tensor(value.detach(), "tensor")
        if isinstance(value, np.ndarray):
            return self._tensor(torch.from_numpy(np.atleast_1d(value).copy()), "array") | {"shape": list(value.shape)}
        if isinstance(value, Mapping):
            tag = "counter" if isinstance(value, Counter) else "dict"
            return {tag: [[self.pack(k, place), self.pack(v, f"{place}[{k!r}]")] for k, v in value.items()]}
        if isinstance(value, list | tuple):
            tag = "list" if isinstance(value, list) else "tuple"
            return {tag: [self.pack(v, f"{place}[{i}]") for i, v in enumerate(value)]}
        raise InputError(
            f"{place} is a {type(value).__name__}, which a checkpoint cannot hold; expected dicts, lists, tuples, "
            "numbers, strings, None, tensors or NumPy arrays"
        )

    def _tensor(self, value: torch.Tensor, tag: str) -> dict[str, Any]:
        identity = (
            value.untyped_storage().data_ptr(),
            value.storage_offset(),
            value.shape,
            value.stride(),
            value.dtype,
        )
        if value.numel() == 0 or identity not in self._seen:
            self._seen[identity] = f"{len(self.tensors):05d}"
            # a copy, so that views into one buffer do not count as shared memory
            self.tensors[self._seen[identity]] = value.cpu().contiguous().clone()
        stride = torch.empty_like(value, device="meta").stride()  # of a dense copy, in this layout
        layout = {} if value.is_contiguous() else {"stride": list(stride)}
        return {tag: self._seen[identity], **layout}


def _unpack(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    tag, content = next(iter(tree.items()))
    if tag == "tensor":
        tensor = tensors[content]
        if "stride" not in tree:
            return tensor
        return torch.empty_strided(tensor.shape, tree["stride"], dtype=tensor.dtype).copy_(tensor)
    if tag == "array":
        return tensors[content].numpy().reshape(tree["shape"])
    if tag in ("dict", "counter"):
        pairs = {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
        return Counter(pairs) if tag == "counter" else pairs
    items = [_unpack(v, tensors) for v in content]
    return items if tag == "list" else tuple(items)
