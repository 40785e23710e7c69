"""Check and convert what `Trajectory.append` and `append_rows` are given."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from twophase_fast._types import InputError
from twophase_fast.storage import spec


def checked_step(step: Any) -> int:
    """Return a step as a plain int; it must be an integer of at least 0.

    Raises:
        InputError: It is not.
    """
    try:
        number = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = -1
    if number < 0:
        raise InputError(f"step must be an integer of at least 0, got {step!r}")
    return number


def checked_kernel(kernel: Any) -> np.ndarray:
    """Return a kernel as a NumPy array (a view where it is on the CPU).

    Raises:
        InputError: Not float32 or float64, or not shaped like a kernel.
    """
    array = kernel.detach().cpu().numpy() if isinstance(kernel, torch.Tensor) else kernel
    if not isinstance(array, np.ndarray) or array.dtype.name not in spec.KERNEL_DTYPES:
        given = getattr(kernel, "dtype", type(kernel).__name__)
        raise InputError(f"a kernel must be a float32 or float64 tensor or array, got {given}; convert it first")
    square = array.ndim != 4 or array.shape[2] == array.shape[3]
    if array.ndim not in (2, 3, 4) or 0 in array.shape or not square:
        raise InputError(f"a kernel has shape [N,M], [N,M,C] or [N,M,C,C], none of them 0; got {array.shape}")
    return array


def checked_metrics(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """Return metrics as floats; 0-dimensional tensors and arrays are read.

    Raises:
        InputError: A value is not one number.
    """
    values = {}
    for name, value in (metrics or {}).items():
        spec.encode_name(name, "metric")
        try:
            values[name] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"metric {name!r} must be one number, got {type(value).__name__}: {error}") from error
    return values


def checked_parameters(parameters: Any) -> dict[str, torch.Tensor]:
    """Return a module's state dict, or a mapping of names to tensors as it is.

    Raises:
        InputError: Something else.
    """
    if isinstance(parameters, torch.nn.Module):
        return parameters.state_dict()
    if not isinstance(parameters, Mapping):
        raise InputError(f"parameters must be a module or a state dict, got {type(parameters).__name__}")
    for name, value in parameters.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"parameters[{name!r}] is a {type(value).__name__}, expected a tensor")
    return dict(parameters)


def columns_of(table: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Turn rows into columns: int64, float64 or text (object dtype).

    Raises:
        InputError: Rows differ in columns, or a column mixes text and numbers.
    """
    names = list(rows[0])
    for i, row in enumerate(rows):
        if set(row) != set(names) or not names:
            raise InputError(f"row {i} of table {table!r} has columns {sorted(row)}, expected {sorted(names)}")
    if spec.ROW in names:
        raise InputError(f"column name {spec.ROW!r} is reserved; rename the column of table {table!r}")
    return {name: _column(table, name, [row[name] for row in rows]) for name in names}


def _column(table: str, name: str, values: list[Any]) -> np.ndarray:
    spec.encode_name(name, "column")
    if all(isinstance(value, str) for value in values):
        return np.array(values, dtype=object)
    if all(isinstance(value, (int, np.integer, np.bool_)) for value in values):
        return np.array(values, dtype=np.int64)
    if any(isinstance(value, str) for value in values):
        raise InputError(f"column {name!r} of table {table!r} mixes text and numbers")
    try:
        return np.array([float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"column {name!r} of table {table!r} holds a value that is no number: {error}") from error


def check_same_columns(table: str, known: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> None:
    """Refuse rows whose columns, or whose kinds of column, differ from those the table has.

    Raises:
        InputError: They differ.
    """
    before = {name: column.dtype == object for name, column in known.items()}
    after = {name: column.dtype == object for name, column in new.items()}
    if before != after:
        raise InputError(
            f"table {table!r} has columns {_described(before)}, the new rows have {_described(after)}; "
            "all rows of a table have the same columns"
        )


def _described(columns: Mapping[str, bool]) -> str:
    return ", ".join(f"{name} ({'text' if text else 'number'})" for name, text in sorted(columns.items()))
