"""Reading one node of a trajectory: the root, or a child."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from twophase_fast._types import StorageError
from twophase_fast.storage.content import NodePath, Probe
from twophase_fast.storage.distances import distance_matrix
from twophase_fast.storage.merge import join_metric, join_table
from twophase_fast.storage.reader import Node, load_kernel, load_probe, load_tensors
from twophase_fast.storage.store import Store

if TYPE_CHECKING:
    import xarray


class StoredNode:
    """What can be read from a node: kernels, metrics, parameters and tables, by step or name.

    Small things are read when the trajectory is opened, kernels and parameters when they are asked for.
    """

    def __init__(self, store: Store, place: NodePath) -> None:
        self._store, self._place = store, place

    def flush(self) -> None:
        """Nothing to do when reading; a trajectory that is written makes batched metrics durable."""

    @property
    def steps(self) -> list[int]:
        """Steps with a stored kernel, increasing."""
        return sorted(self._node.kernels)

    def kernel(self, step: int) -> torch.Tensor:
        """Read the kernel of a step, bit for bit as it was appended.

        Args:
            step: One of `steps`.

        Returns:
            `[N, M]`, `[N, M, C]` or `[N, M, C, C]` on the CPU.

        Raises:
            StorageError: No kernel at this step, or it is corrupt.
        """
        return torch.from_numpy(load_kernel(self._found(self._node.kernels, step, "kernel")))

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, sorted."""
        return sorted(self._node.metrics)

    def metric(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Read a metric.

        Args:
            name: One of `metrics`.

        Returns:
            Steps (int64, increasing) and values (float64).

        Raises:
            StorageError: No such metric.
        """
        return join_metric(self._found(self._node.metrics, name, "metric"))

    @property
    def parameter_steps(self) -> list[int]:
        """Steps with stored parameters, increasing."""
        return sorted(self._node.parameters)

    def parameters(self, step: int) -> dict[str, torch.Tensor]:
        """Read the parameters (and buffers) of a step, in the order of the state dict.

        Args:
            step: One of `parameter_steps`.

        Returns:
            Name to tensor, dtype and bits as appended.

        Raises:
            StorageError: No parameters at this step, or they are corrupt.
        """
        return load_tensors(self._found(self._node.parameters, step, "parameters"))

    @property
    def tables(self) -> list[str]:
        """Names of the tables, sorted."""
        return sorted(self._node.tables)

    def table(self, name: str) -> dict[str, np.ndarray]:
        """Read a table.

        Args:
            name: One of `tables`.

        Returns:
            Column to array (int64, float64, or object holding str), rows in the order appended.

        Raises:
            StorageError: No such table.
        """
        return join_table(self._found(self._node.tables, name, "table"))

    def kernel_distances(self, steps: Iterable[int] | None = None) -> np.ndarray:
        """All pairs of kernel distances S, in float64 and difference form (`ops.one_minus_cos`).

        Args:
            steps: Steps to compare; default every step whose kernel was appended.

        Returns:
            Symmetric `[len(steps), len(steps)]`, zero diagonal. Where the keep policy dropped a kernel: the distance
            that was stored instead, or nan.

        Raises:
            StorageError: A step at which no kernel was appended, or a corrupt file.
        """
        return distance_matrix(self._node, steps, self._where())

    @property
    def children(self) -> list[str]:
        """Names of the children, in the order they were made."""
        depth = len(self._place)
        return [p[depth] for p in self._nodes() if len(p) == depth + 1 and p[:depth] == self._place]

    @property
    def attrs(self) -> dict[str, Any]:
        """Plain values describing this node."""
        return dict(self._node.attrs)

    @property
    def probe(self) -> Probe | None:
        """The probe set, in the structure it was given; children share their root's.

        Raises:
            StorageError: It is corrupt.
        """
        place = self._store.index.probe
        return None if place is None else load_probe(place)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration given to `create`, as plain values (tuples became lists)."""
        return self._store.index.config or {}

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, hardware, git revision, time and precision of the first session; `resumed` lists later ones."""
        sessions = self._store.index.provenance
        return {**sessions[0], "resumed": sessions[1:]} if sessions else {}

    def to_xarray(self) -> xarray.Dataset:
        """This node (without its children) as an `xarray.Dataset`: see `storage.to_xarray.dataset`.

        Returns:
            A data set in memory.

        Raises:
            StorageError: xarray is not installed, or a file is corrupt.
        """
        from twophase_fast.storage.to_xarray import dataset

        return dataset(self)

    def __repr__(self) -> str:
        node = self._node
        return (
            f"{type(self).__name__}({self._where()}: {len(node.kernels)} kernels, "
            f"{len(node.parameters)} sets of parameters, {len(node.metrics)} metrics, {len(node.tables)} tables, "
            f"{len(self.children)} children)"
        )

    def _nodes(self) -> dict[NodePath, Node]:
        """Nodes of the index; batched metrics are written first, so that a writer reads what it appended."""
        if self._store.writing:
            self.flush()
        return self._store.index.nodes

    @property
    def _node(self) -> Node:
        return self._nodes().get(self._place) or Node()

    def _where(self) -> str:
        return "/".join([str(self._store.path), *self._place])

    def _found(self, known: Mapping[Any, Any], key: Any, what: str) -> Any:
        if key not in known:
            raise StorageError(f"{self._where()} has no {what} {key!r}; it has {sorted(known) or 'none'}")
        return known[key]
