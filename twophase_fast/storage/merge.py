"""Join what many parts hold into the contents of one packed file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from twophase_fast._types import StorageError
from twophase_fast.storage.content import Content, Contents, Header, KernelStack
from twophase_fast.storage.reader import Index, KernelRef, Node, load_kernel, load_probe, load_stored, load_tensors


def merged(index: Index, header: Header, parts: list[Path]) -> tuple[Header, Contents]:
    """Header and contents of the packed file; kernels and parameters are read only when they are written."""
    whole = replace(
        header,
        part="packed",
        overwrites=False,
        packed_parts=tuple(part.name for part in parts),
        config=index.config,
        provenance=index.provenance + header.provenance,
        probe=load_probe(index.probe) if index.probe else None,
    )
    return whole, {path: _content(node) for path, node in index.nodes.items()}


def _content(node: Node) -> Content:
    return Content(
        attrs=node.attrs,
        kernels=_stack(node.kernels) if node.kernels else None,
        parameters={step: partial(load_tensors, ref) for step, ref in node.parameters.items()},
        metrics={name: join_metric(pieces) for name, pieces in node.metrics.items()},
        tables={name: join_table(pieces) for name, pieces in node.tables.items()},
    )


def _stack(kernels: Mapping[int, KernelRef]) -> KernelStack:
    forms = {(ref.shape, ref.dtype) for ref in kernels.values()}
    if len(forms) > 1:
        raise StorageError(f"kernels of one trajectory differ in shape or dtype: {sorted(forms)}; cannot pack them")
    shape, dtype = forms.pop()
    packed = all(ref.packed for ref in kernels.values())
    load = load_stored if packed else load_kernel
    return KernelStack(shape, dtype, packed, sorted(kernels), lambda step: load(kernels[step]))


def join_metric(pieces: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps (int64) and values (float64) of one metric, in the order of steps."""
    steps, values = (np.concatenate(side) for side in zip(*pieces))
    order = np.argsort(steps, kind="stable")
    return steps[order], values[order]


def join_table(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Columns of one table, in the order the rows were appended."""
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
