"""Write one complete file of a trajectory: a part, or the packed whole. FORMAT.md describes the result."""

from __future__ import annotations

from collections.abc import Mapping

import h5py
import numpy as np
import torch

from twophase_fast.storage import spec, triangle
from twophase_fast.storage.arrays import TEXT, create, dimension, label, write_json, write_tensors
from twophase_fast.storage.content import Content, Contents, Header, KernelStack, NodePath, Probe


def write_file(file: h5py.File, header: Header, contents: Contents) -> None:
    """Fill an empty HDF5 file with a header and the contents of its nodes."""
    _write_header(file, header)
    for path, content in contents.items():
        _write_node(_node(file, path), content)


def _write_header(file: h5py.File, header: Header) -> None:
    file.attrs["format"] = spec.FORMAT
    file.attrs["format_version"] = spec.version_text()
    file.attrs["run_id"] = header.run_id
    file.attrs["part"] = header.part
    file.attrs["overwrites"] = np.int8(header.overwrites)
    file.attrs["keep"] = header.keep
    file.attrs["references"] = np.asarray(header.references, dtype=np.int64)
    write_json(file, spec.PACKED_PARTS, list(header.packed_parts))
    if header.config is not None:
        write_json(file, spec.CONFIG, header.config)
    if header.provenance:
        write_json(file, spec.PROVENANCE, header.provenance)
    if header.probe is not None:
        _write_probe(file, header.probe)


def _write_probe(file: h5py.File, probe: Probe) -> None:
    group = _group(file, spec.PROBE)
    if isinstance(probe, torch.Tensor):
        group.attrs["structure"], tensors = "tensor", {"0": probe}
    elif isinstance(probe, Mapping):
        group.attrs["structure"], tensors = "dict", dict(probe)
    else:
        group.attrs["structure"], tensors = "tuple", {str(i): tensor for i, tensor in enumerate(probe)}
    write_tensors(_group(group, "tensors"), group, tensors, "probe input")


def _node(file: h5py.File, path: NodePath) -> h5py.Group:
    node: h5py.Group = file
    for name in path:
        node = _group(_group(node, spec.CHILDREN), spec.encode_name(name, "child"))
    return node


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    return parent[name] if name in parent else parent.create_group(name, track_order=True)


def _write_node(node: h5py.Group, content: Content) -> None:
    if content.attrs:
        write_json(node, spec.ATTRS, content.attrs)
    if content.kernels is not None:
        _write_kernels(_group(node, spec.KERNELS), content.kernels)
    for step in sorted(content.parameters):
        parameters = _group(node, spec.PARAMETERS)
        write_tensors(_group(parameters, spec.step_name(step)), parameters, content.parameters[step](), "parameter")
    for name, (steps, values) in content.metrics.items():
        _write_metric(_group(_group(node, spec.METRICS), spec.encode_name(name, "metric")), steps, values)
    for name, columns in content.tables.items():
        _write_table(_group(_group(node, spec.TABLES), spec.encode_name(name, "table")), columns)


def _steps_scale(group: h5py.Group, steps) -> h5py.Dataset:
    scale = create(group, spec.STEP, (len(steps),), "i8")
    scale[...] = np.asarray(steps, dtype=np.int64)
    scale.make_scale(spec.STEP)
    return scale


def _write_kernels(group: h5py.Group, stack: KernelStack) -> None:
    row = triangle.entries(stack.shape) if stack.packed else stack.shape
    names = spec.KERNEL_AXES[: len(stack.shape)]
    if stack.packed:
        names = ("output_1", spec.ENTRY)[-len(row) :]
    group.attrs["shape"] = np.asarray(stack.shape, dtype=np.int64)
    group.attrs["packing"] = "upper_triangle" if stack.packed else "none"
    scales = [_steps_scale(group, stack.steps), *(dimension(group, n, size) for n, size in zip(names, row))]
    chunk = (1, *spec.chunk_shape(row, np.dtype(stack.dtype).itemsize))
    dataset = create(group, spec.KERNEL, (len(stack.steps), *row), stack.dtype, chunk)
    label(dataset, scales)
    for i, step in enumerate(stack.steps):
        dataset[i] = stack.load(step)


def _write_metric(group: h5py.Group, steps: np.ndarray, values: np.ndarray) -> None:
    dataset = create(group, spec.VALUE, (len(values),), "f8")
    dataset[...] = values
    label(dataset, [_steps_scale(group, steps)])


def _write_table(group: h5py.Group, columns: Mapping[str, np.ndarray]) -> None:
    length = len(next(iter(columns.values())))
    scale = dimension(group, spec.ROW, length)
    for name, column in columns.items():
        dataset = create(
            group, spec.encode_name(name, "column"), (length,), TEXT if column.dtype == object else column.dtype
        )
        dataset[...] = column
        label(dataset, [scale])
