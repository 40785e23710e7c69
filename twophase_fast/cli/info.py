"""`twophase info`: what is inside a run file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twophase_fast.cli._command import Command, json_option

if TYPE_CHECKING:
    from twophase_fast.storage import Trajectory


@click.command("info", cls=Command, example="twophase info runs/demo.h5\ntwophase info runs/demo.h5 --json")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN.h5")
@json_option
def command(run: Path, as_json: bool) -> None:
    """Say what is inside a run file: steps, kernels, metrics, tables, configuration, provenance.

    Works on finished runs and on runs that are still being written.
    """
    from twophase_fast.storage import Trajectory

    with Trajectory.open(run) as trajectory:
        contents = describe(trajectory, run)
    click.echo(json.dumps(contents, indent=2) if as_json else "\n".join(_lines(contents)))


def describe(trajectory: Trajectory, path: Path) -> dict[str, Any]:
    """Return what a trajectory holds as plain values.

    Args:
        trajectory: Open for reading.
        path: Where it was opened.

    Returns:
        `file`, `megabytes`, the root's contents, `children`, `config`, `provenance`.
    """
    return {
        "file": str(path),
        "megabytes": round(_size(path) / 1e6, 3),
        **_node(trajectory),
        "children": {name: _node(trajectory.child(name)) for name in trajectory.children},
        "config": trajectory.config,
        "provenance": trajectory.provenance,
    }


def _size(path: Path) -> int:
    """Return the bytes of the packed file and of parts not packed yet."""
    parts = path if path.is_dir() else path.with_name(path.name + ".parts")
    files = [*([path] if path.is_file() else []), *(parts.iterdir() if parts.is_dir() else [])]
    return sum(file.stat().st_size for file in files)


def _node(node: Trajectory) -> dict[str, Any]:
    return {
        "attrs": node.attrs,
        "kernel_steps": node.steps,
        "kernel": _kernel(node),
        "parameter_steps": node.parameter_steps,
        "metrics": {name: len(node.metric(name)[0]) for name in node.metrics},
        "tables": {name: _table(node.table(name)) for name in node.tables},
    }


def _kernel(node: Trajectory) -> dict[str, Any] | None:
    if not node.steps:
        return None
    first = node.kernel(node.steps[0])
    return {"shape": list(first.shape), "dtype": str(first.dtype).removeprefix("torch.")}


def _table(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {"rows": len(next(iter(columns.values()), ())), "columns": list(columns)}


def _lines(contents: Mapping[str, Any]) -> Iterator[str]:
    yield f"{contents['file']}  {contents['megabytes']:,.2f} MB"
    yield from _node_lines("run", contents)
    for name, child in contents["children"].items():
        yield from _node_lines(name, child)
    yield from _section("configuration", contents["config"])
    yield from _section("provenance", contents["provenance"])


def _node_lines(name: str, node: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n{name}"
    if node["attrs"]:
        yield "  " + ", ".join(f"{key} {value}" for key, value in node["attrs"].items())
    if node["kernel"]:
        shape = "×".join(map(str, node["kernel"]["shape"]))
        yield f"  kernels     {shape} {node['kernel']['dtype']} at {_steps(node['kernel_steps'])}"
    if node["parameter_steps"]:
        yield f"  parameters  at {_steps(node['parameter_steps'])}"
    if node["metrics"]:
        yield "  metrics     " + ", ".join(f"{name} ({count})" for name, count in node["metrics"].items())
    for table, size in node["tables"].items():
        yield f"  table       {table}: {size['rows']:,} rows, {len(size['columns'])} columns"


def _steps(steps: Sequence[int]) -> str:
    shown = ", ".join(map(str, steps)) if len(steps) <= 8 else f"{steps[0]}, {steps[1]}, …, {steps[-1]}"
    return f"{len(steps)} step{'s' if len(steps) > 1 else ''}: {shown}"


def _section(title: str, values: Mapping[str, Any]) -> Iterator[str]:
    if not values:
        return
    from twophase_fast.report.data import flatten

    yield f"\n{title}"
    yield from (f"  {key} = {value}" for key, value in flatten(values) if value not in (None, [], ""))
