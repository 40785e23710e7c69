"""The public face of storage: one run, written step by step (reading: node.py)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch

from twophase_fast._types import InputError, StorageError
from twophase_fast.storage import provenance, spec
from twophase_fast.storage._entries import check_same_columns, checked_step, columns_of
from twophase_fast.storage.arrays import plain
from twophase_fast.storage.content import Content, Header, NodePath, Probe
from twophase_fast.storage.node import StoredNode
from twophase_fast.storage.reader import Node
from twophase_fast.storage.recorder import Recorder
from twophase_fast.storage.store import Store

Keep = Literal["all", "references", "metrics"]
PathLike = str | os.PathLike[str]


class Trajectory(StoredNode):
    """Kernels, metrics, parameters and tables of one run, by step, in HDF5 (FORMAT.md).

    Make one with `create`, `open` or `append_to`, best as a context manager. While it is written it is a folder
    `run.h5.parts/` of small complete files; `close` packs them into `run.h5`. What has been appended is durable once
    the call returns (metrics alone are batched for a few seconds, or until `flush`). If the `with` block ends by an
    exception the parts are left as they are, for `append_to`.

    A child is a trajectory inside this one, with its own steps; it shares the file and the life of its root.
    """

    def __init__(self, store: Store, recorder: Recorder | None, place: NodePath = ()) -> None:
        super().__init__(store, place)
        self._recorder = recorder

    # ---- life -------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: PathLike,
        *,
        probe: Probe | None = None,
        config: Mapping[str, Any] | None = None,
        keep: Keep = "all",
        references: Sequence[int] = (),
        attrs: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> Trajectory:
        """Start a new run.

        Args:
            path: File to end up in, for example `run.h5`; missing folders are made.
            probe: Probe set: tensor, tuple or dict of tensors.
            config: Plain nested values.
            keep: "all" stores every kernel. "references" stores those at the steps in `references`, "metrics" none;
                both then store S from the first kernel, every reference and the previous kernel to each new one, for
                `kernel_distances`. The policy holds for the children too.
            references: Steps whose kernels are kept under `keep="references"`.
            attrs: Plain values describing the root, as `child(attrs=)` does for a child.
            overwrite: Start although `path` exists. The old run is replaced only when this one is closed.

        Returns:
            A trajectory open for writing.

        Raises:
            InputError: An unknown keep policy, or values that cannot be stored.
            StorageError: The path exists, is being written, or cannot be written.
        """
        _check_keep(keep, references)
        if config is not None and not isinstance(config, Mapping):
            raise InputError(f"config is a {type(config).__name__}; expected a dict of plain nested values")
        header = Header(
            run_id=uuid.uuid4().hex,
            part="",
            keep=keep,
            references=tuple(checked_step(step) for step in references),
            config=plain(config or {}, "config"),
            provenance=[provenance.collect()],
            probe=probe,
        )
        root = plain(attrs or {}, "attrs")
        store = Store.create(Path(path), header, overwrite)
        recorder = Recorder(store)
        if root:
            recorder.set_attrs((), root)
        return cls(store, recorder)

    @classmethod
    def open(cls, path: PathLike) -> Trajectory:
        """Open a run for reading: packed, still in parts (also while it is being written), or both.

        Args:
            path: `run.h5`, or the folder `run.h5.parts`.

        Returns:
            A trajectory as it was at this moment; open again to see what a live writer has added.

        Raises:
            StorageError: Nothing is there, or a file is corrupt (the message names it and the place in it).
        """
        return cls(Store.open(Path(path)), None)

    @classmethod
    def append_to(cls, path: PathLike) -> Trajectory:
        """Go on writing a run that was cut off, or add to one that was closed.

        Args:
            path: The path given to `create`.

        Returns:
            A trajectory open for writing, with everything stored before.

        Raises:
            StorageError: Nothing is there, it is corrupt, or another process is writing it.
        """
        header = Header(run_id="", part="", provenance=[provenance.collect()])
        store = Store.append_to(Path(path), header)
        return cls(store, Recorder(store))

    def flush(self) -> None:
        """Make batched metrics durable; nothing to do when reading.

        Raises:
            StorageError: They could not be written; they stay in memory for another try.
        """
        if self._recorder is not None:
            self._recorder.flush()

    def close(self) -> None:
        """Pack a run that was written into one file. It stays readable; a second call does nothing.

        Raises:
            StorageError: Packing failed; the folder of parts still holds everything.
        """
        if self._place or self._recorder is None or not self._store.writing:
            return
        self._recorder.flush()
        self._store.pack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self._place and self._recorder is not None and self._store.writing:
            try:
                self._recorder.flush()
            finally:
                self._store.abandon()

    # ---- writing ----------------------------------------------------------------------------------------------

    def append(
        self,
        step: int,
        *,
        kernel: torch.Tensor | np.ndarray | None = None,
        metrics: Mapping[str, float] | None = None,
        parameters: torch.nn.Module | Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Add what was measured at a step; all of it is kept, or none.

        Args:
            step: Training iteration, at least 0; any order, also one that already holds other things.
            kernel: float32 or float64, `[N, M]`, `[N, M, C]` or `[N, M, C, C]`; the same shape and dtype every time.
            metrics: Name to number.
            parameters: A module (its state dict, buffers included) or a state dict.

        Raises:
            InputError: Bad values, or the step already holds this kernel, metric or parameters.
            StorageError: Open for reading only, or the write failed (nothing appended before is lost).
        """
        self._writer().append(self._place, step, kernel, metrics, parameters)

    def append_rows(self, table: str, rows: Sequence[Mapping[str, int | float | str]]) -> None:
        """Add rows to a table; the first ones decide its columns. No rows: nothing happens.

        Args:
            table: Name of the table.
            rows: Column to value; a column holds numbers or text. Use nan for 'not evaluated'.

        Raises:
            InputError: Columns differ, mix text and numbers, or hold something else.
            StorageError: Open for reading only, or the write failed (nothing appended before is lost).
        """
        writer = self._writer()
        if spec.encode_name(table, "table") == spec.DISTANCES:
            raise InputError(f"table name {table!r} is reserved for the distances of a keep policy; choose another")
        if not rows:
            return
        columns = columns_of(table, rows)
        for piece in self._node_as_written().tables.get(table, [])[:1]:
            check_same_columns(table, piece, columns)
        writer.publish({self._place: Content(tables={table: columns})})

    def set_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Add to `attrs`, replacing equal keys.

        Args:
            attrs: Plain values.

        Raises:
            InputError: A value that cannot be stored.
            StorageError: Open for reading only, or the write failed.
        """
        self._writer().set_attrs(self._place, plain(attrs, "attrs"))

    def child(self, name: str, *, attrs: Mapping[str, Any] | None = None) -> Trajectory:
        """Give the child of this name: made when writing, if there is none yet.

        Args:
            name: Any non-empty string.
            attrs: Plain values to add to the child's `attrs` (writing only).

        Returns:
            A trajectory that shares this file; its `close` does nothing.

        Raises:
            InputError: An empty name, or attributes that cannot be stored.
            StorageError: Reading, and there is no such child.
        """
        spec.encode_name(name, "child")
        place = (*self._place, name)
        exists = place in self._store.index.nodes
        if self._recorder is None or not self._store.writing:
            if not exists:
                raise StorageError(f"{self._where()} has no child {name!r}; it has {self.children or 'none'}")
        elif not exists or attrs:
            self._recorder.set_attrs(place, plain(attrs or {}, "attrs"))
        return Trajectory(self._store, self._recorder, place)

    # ---- private ------------------------------------------------------------------------------------------

    def _node_as_written(self) -> Node:
        return self._store.index.nodes.get(self._place) or Node()

    def _writer(self) -> Recorder:
        if self._recorder is None or not self._store.writing:
            raise StorageError(f"{self._where()} is not open for writing; use Trajectory.append_to to add to it")
        return self._recorder


def _check_keep(keep: str, references: Sequence[int]) -> None:
    if keep == "sketch":
        raise InputError("keep='sketch' is not there yet; use 'all', 'references' (with references=[...]) or 'metrics'")
    if keep not in spec.KEEP_POLICIES:
        raise InputError(f"keep must be one of {', '.join(spec.KEEP_POLICIES)}, got {keep!r}")
    if (keep == "references") != bool(references):
        raise InputError(
            f"references=[...] goes with keep='references' and with nothing else; got keep={keep!r}, {references=}"
        )
