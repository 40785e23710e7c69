"""A trajectory's node as an `xarray.Dataset`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from twophase_fast._types import StorageError
from twophase_fast.storage import spec

if TYPE_CHECKING:
    import xarray

    from twophase_fast.storage.node import StoredNode


def dataset(trajectory: StoredNode) -> xarray.Dataset:
    """Kernels, metrics and tables of one node, in memory.

    Args:
        trajectory: Root or child.

    Returns:
        `kernel` over (`kernel_step`, `sample_1`, `sample_2`, ...), unpacked; each metric over `step`, the union of all
        metrics' steps, nan where it was not recorded; each table's column as `<table>.<column>` over `<table>_row`;
        the node's attributes.

    Raises:
        StorageError: xarray is not installed, or a file is corrupt.
    """
    try:
        import xarray as xr
    except ImportError as error:
        raise StorageError("to_xarray needs xarray: pip install 'twophase_fast[xarray]'") from error
    variables = {**_metrics(trajectory), **_tables(trajectory)}
    coordinates = {}
    if trajectory.metrics:
        coordinates["step"] = _metric_steps(trajectory)
    if trajectory.steps:
        coordinates["kernel_step"] = np.array(trajectory.steps, dtype=np.int64)
        variables["kernel"] = _kernels(trajectory)
    return xr.Dataset(variables, coords=coordinates, attrs=trajectory.attrs)


def _metric_steps(trajectory: StoredNode) -> np.ndarray:
    return np.unique(np.concatenate([trajectory.metric(name)[0] for name in trajectory.metrics]))


def _metrics(trajectory: StoredNode) -> dict:
    variables = {}
    for name in trajectory.metrics:
        steps, values = trajectory.metric(name)
        union = _metric_steps(trajectory)
        column = np.full(len(union), np.nan)
        column[np.searchsorted(union, steps)] = values
        variables[name] = (("step",), column)
    return variables


def _tables(trajectory: StoredNode) -> dict:
    return {
        f"{table}.{name}": ((f"{table}_row",), column)
        for table in trajectory.tables
        for name, column in trajectory.table(table).items()
    }


def _kernels(trajectory: StoredNode) -> tuple:
    kernels = np.stack([trajectory.kernel(step).numpy() for step in trajectory.steps])
    return ("kernel_step", *spec.KERNEL_AXES[: kernels.ndim - 1]), kernels
