"""Names, version and layout of a stored trajectory; FORMAT.md says the same in prose.

A change here is a change of the file format: raise the version, add a line to FORMAT.md and archive a file.
"""

from __future__ import annotations

import math
from urllib.parse import quote, unquote

from twophase_fast._types import InputError

FORMAT = "twophase_fast.trajectory"
VERSION = (1, 0)

PARTS_SUFFIX = ".parts"
PART_FILE_SUFFIX = ".h5"
TEMPORARY_SUFFIX = ".tmp"
LOCK_FILE = ".lock"

# Names inside a file.
CHILDREN, KERNELS, PARAMETERS, METRICS, TABLES, PROBE = (
    "children",
    "kernels",
    "parameters",
    "metrics",
    "tables",
    "probe",
)
STEP, KERNEL, VALUE, ROW = "step", "kernel", "value", "table_row"
ATTRS, CONFIG, PROVENANCE, PACKED_PARTS = "attrs", "config", "provenance", "packed_parts"
DISTANCES = "kernel_distances"  # the table that keeps S where a keep policy drops the kernels themselves

KEEP_POLICIES = ("all", "references", "metrics")
KERNEL_DTYPES = ("float32", "float64")
KERNEL_AXES = ("sample_1", "sample_2", "output_1", "output_2")
ENTRY = "entry"

# What h5netcdf and netCDF-4 expect as the name of a dimension scale that carries no coordinates.
DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable.%10d"

CHUNK_BYTES = 1 << 20
_SAFE = " !\"#$&'()*+,-:;<=>?@[]^_`{|}~\\"


def encode_name(name: str, what: str) -> str:
    """Turn any non-empty name into one HDF5 link name ("/" and "%" become %2F and %25).

    Args:
        name: Name of a metric, table, column, parameter or child.
        what: What is named, for the message.

    Returns:
        The link name; `decode_name` undoes it.

    Raises:
        InputError: The name is not a non-empty string.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"the name of a {what} must be a non-empty string, got {name!r}")
    encoded = quote(name, safe=_SAFE + ".")
    return encoded.replace(".", "%2E", 1) if encoded.startswith(".") else encoded


def decode_name(link: str) -> str:
    """Undo `encode_name`."""
    return unquote(link)


def step_name(step: int) -> str:
    """Name of the group that holds the parameters of one step; sorts as the steps do."""
    return f"{step:012d}"


def version_text() -> str:
    """Format version as it is written: `major.minor`."""
    return f"{VERSION[0]}.{VERSION[1]}"


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunk of about `CHUNK_BYTES`: whole trailing axes while they fit, then part of one axis, then 1.

    Args:
        shape: Shape of the data set; no axis is 0.
        itemsize: Bytes per element.

    Returns:
        A chunk shape no larger than `shape`.
    """
    budget = max(1, CHUNK_BYTES // itemsize)
    chunk: list[int] = []
    for length in reversed(shape):
        chunk.append(max(1, min(length, budget // math.prod(chunk))))
    return tuple(reversed(chunk))
