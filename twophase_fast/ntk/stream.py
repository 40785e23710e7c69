"""Kernels larger than memory: tiles written to `out` as they finish, and resumed where a run was cut off.

`out` is anything with a shape and slice assignment: a Tensor, a NumPy array or memmap, an HDF5 data set. Beside a
memmap lies `<file>.tiles.json`, on an HDF5 data set an attribute; it names the computation (a hash of parameters,
inputs, options and tile size) and the finished tiles. A second call with the same arguments computes only what is
missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree
from tqdm import tqdm

from twophase_fast._types import InputError, Precision
from twophase_fast.ntk.block import place
from twophase_fast.ntk.checks import Checks, is_asynchronous
from twophase_fast.ntk.computation import Computation
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.info import Info
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.memory import DEFAULT_SHARE, free_bytes
from twophase_fast.ntk.outbox import Handover, Outbox

_ATTRIBUTE = "twophase_tiles"
_KERNEL_SHARE = 0.25  # of the budget, for one tile of the kernel
_PINNED_BYTES = 2**30  # of the host's memory, for each of the two blocks on their way to it


def fill(
    out: Any,
    function: Function,
    left: Batch,
    right: Batch | None,
    output: str,
    tile: int | None,
    budget: int | None,
    *,
    precision: Precision,
    progress: bool,
) -> Info:
    """Fill `out` tile by tile and return what was done.

    Args:
        out: Target of shape [N, M, C, C], [N, M] or [N, M, C].
        function: Model, output function and selected parameters.
        left: The N samples.
        right: The M samples, or None for the symmetric kernel.
        output: `full`, `trace`, `diagonal` or `sum`.
        tile: Samples per forward pass, or None to choose.
        budget: Bytes that may be used, or None for a share of what is free.
        precision: Of the contractions.
        progress: Show a bar with the time left.

    Raises:
        InputError: `out` has another shape or no floating-point dtype, is read-only, or holds tiles of another
            computation.
    """
    columns = left if right is None else right
    outputs = function.graph(left.take(slice(0, min(2, left.size)))).output.shape[1]
    per_pair = {"full": (outputs, outputs), "diagonal": (outputs,)}.get(output, ())
    _check_out(out, (left.size, columns.size, *per_pair))
    budget = budget or int(free_bytes(function.device) * DEFAULT_SHARE)
    entry_bytes = int(np.prod(per_pair, dtype=np.int64)) * function.dtype.itemsize
    side = max(1, int((budget * _KERNEL_SHARE / entry_bytes) ** 0.5))
    away = is_asynchronous(function.device) and not (isinstance(out, torch.Tensor) and out.device == function.device)
    if away:
        side = max(1, min(side, int((_PINNED_BYTES / entry_bytes) ** 0.5)))
    reserved = min(side, left.size) * min(side, columns.size) * entry_bytes if away else 0  # one block is on its way
    options = {"reserved": reserved, "side": side, "precision": precision}
    computation = Computation(function, left, right, output, tile, budget, **options)
    side = computation.prepare().side
    how = f"{output} {side} {computation.info.precision}"
    log = _TileLog(out, _fingerprint(function, left, right, how))
    blocks = list(computation.blocks())
    missing = [k for k in range(len(blocks)) if not log.done >> k & 1]
    outbox = Outbox(function.device) if away else Handover()
    for k in tqdm(missing, disable=not progress, desc="entk", unit="tile"):
        kernels, checks = computation.enqueue(*blocks[k])
        outbox.send(kernels.pop(""), partial(_write, out, log, k, blocks[k], checks, mirror=right is None))
    outbox.empty()
    computation.info.settle()
    return computation.info


def _write(
    out: Any, log: _TileLog, k: int, where: tuple[slice, slice], checks: Checks, block: torch.Tensor, *, mirror: bool
) -> None:
    """Write block k, whose values are required to be good, and note that it is written."""
    checks.settle()
    place(out, *where, block, mirror=mirror and where[0] != where[1])
    log.add(k)


def _check_out(out: Any, expected: tuple[int, ...]) -> None:
    if not hasattr(out, "shape") or not hasattr(out, "__setitem__"):
        raise InputError(f"out is a {type(out).__name__}; expected something with a shape and slice assignment")
    if tuple(out.shape) != expected:
        raise InputError(f"out has shape {tuple(out.shape)}; this kernel has shape {expected}")
    dtype = getattr(out, "dtype", torch.float32)
    if not (dtype.is_floating_point if isinstance(dtype, torch.dtype) else "float" in np.dtype(dtype).name):
        raise InputError(f"out has dtype {dtype}, which cannot hold a kernel; make it float32 or float64")
    closed = getattr(getattr(out, "file", None), "mode", "r+") == "r"  # an HDF5 data set's
    if closed or not getattr(getattr(out, "flags", None), "writeable", True):
        raise InputError("out is read-only; open its file with mode 'r+'")


def _fingerprint(function: Function, left: Batch, right: Batch | None, how: str) -> str:
    """Return a hash of everything the result depends on."""
    digest = hashlib.sha256(how.encode())
    leaves = pytree.tree_leaves([(b.x, b.targets) for b in (left, right) if b is not None])
    for tensor in [*function.model.state_dict().values(), *leaves]:
        if isinstance(tensor, torch.Tensor):
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(flat.numpy())
    digest.update(" ".join(function.parameters).encode())
    return digest.hexdigest()


class _TileLog:
    """The finished tiles of one computation, kept with `out` where it lives in a file."""

    def __init__(self, out: Any, fingerprint: str) -> None:
        self._out, self._fingerprint = out, fingerprint
        self._path = Path(f"{out.filename}.tiles.json") if getattr(out, "filename", None) else None
        self.done = 0  # bit k: tile k is written
        stored = self._read()
        if stored is None:
            return
        if stored["computation"] != fingerprint:
            where = self._path or f"attribute {_ATTRIBUTE!r}"
            raise InputError(
                "out holds tiles of another computation (other parameters, inputs, options or budget); "
                f"remove {where} to start over"
            )
        self.done = int(stored["done"], 16)

    def add(self, k: int) -> None:
        """Note that tile k is written: first the data reach the file, then the note."""
        self.done |= 1 << k
        text = json.dumps({"computation": self._fingerprint, "done": f"{self.done:x}"})
        if self._path is not None:
            self._out.flush()
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(text)
            os.replace(temporary, self._path)
        elif hasattr(self._out, "attrs"):
            self._out.file.flush()
            self._out.attrs[_ATTRIBUTE] = text
            self._out.file.flush()

    def _read(self) -> dict[str, Any] | None:
        if self._path is not None:
            return json.loads(self._path.read_text()) if self._path.exists() else None
        attributes = getattr(self._out, "attrs", {})
        return json.loads(attributes[_ATTRIBUTE]) if _ATTRIBUTE in attributes else None
