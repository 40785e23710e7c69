"""`twophase doctor`: what this machine and installation can do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from twophase_fast.cli._command import Command, json_option

EXTRAS = ("matplotlib", "jinja2", "scipy", "xarray", "h5netcdf", "triton")
OPENMP_NAMES = ("libgomp", "libiomp", "libomp")


@click.command("doctor", cls=Command, example="twophase doctor\ntwophase doctor --json")
@json_option
@click.option("--calibrate", is_flag=True, help="Measure the ops' throughputs anew; plans rest on them.")
def command(as_json: bool, calibrate: bool) -> None:
    """Say what this machine can do, which backend runs each op, and why not the others.

    Paste the output into a bug report.
    """
    if calibrate:
        from twophase_fast.ntk import calibrate as measure

        measure(refresh=True)
    found = examine()
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))


def examine() -> dict[str, Any]:
    """Return hardware, extension, backends and versions as plain values."""
    return {
        "versions": _versions(),
        "hardware": _hardware(),
        "extension": _extension(),
        "backends": _backends(),
        "ops": _ops(),
        "openmp": _openmp(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith("TWOPHASE_")},
    }


def _versions() -> dict[str, str]:
    from twophase_fast.storage import provenance

    return {**provenance.collect()["versions"], **{name: _version(name) for name in EXTRAS}}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _hardware() -> dict[str, Any]:
    from twophase_fast.storage import provenance

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {**provenance.collect()["hardware"], "usable_cores": usable}


def _extension() -> dict[str, Any]:
    from twophase_fast import _native, settings

    reason = _native.missing()
    if reason is not None:
        return {"loaded": False, "reason": reason}
    return {
        "loaded": True,
        "isa_available": list(_native.available_isas()),
        "isa_chosen": _native.isa(),
        "isa_limit": settings.isa() or "none",
        "matrix_units": list(_native.available_matrix_units()),
        "matrix_unit_chosen": _native.matrix_unit() or "none: Gram blocks at 'high' run at 'highest'",
        "threads": _native.threads(),
    }


def _backends() -> dict[str, str]:
    """Return backend -> "ready", or the reason why it cannot run here."""
    from twophase_fast import _native, settings

    chosen = settings.backend()
    states = dict.fromkeys(("reference", "library"), "ready")
    states |= {"cpu": _native.missing() or "ready", "triton": _triton() or "ready"}
    return {
        name: f"{state} (forced by TWOPHASE_BACKEND)" if name == chosen else state for name, state in states.items()
    }


def _triton() -> str | None:
    import torch

    from twophase_fast.ops import _dispatch

    reasons = []
    if not any("triton" in _dispatch.backends(op) for op in _dispatch.ops()):
        reasons.append("no op of this version has a Triton implementation")
    if find_spec("triton") is None:
        reasons.append("triton is not installed")
    if not torch.cuda.is_available():
        reasons.append("torch sees no GPU")
    return "; ".join(reasons) or None


def _ops() -> dict[str, list[str]]:
    """Return op -> the backends it has, in the order in which they are tried."""
    from twophase_fast.ops import _dispatch

    return {op: _dispatch.backends(op) for op in _dispatch.ops()}


def _openmp() -> dict[str, Any]:
    """Return the OpenMP runtimes loaded into this process (two of them would fight over the cores)."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return {"runtimes": [], "note": "not known on this system"}
    lines = maps.read_text(encoding="utf-8").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    runtimes = sorted(path for path in paths if Path(path).name.startswith(OPENMP_NAMES))
    return {"runtimes": runtimes, "note": "" if len(runtimes) < 2 else "more than one: expect slow or hanging threads"}


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    for title, values in found.items():
        if not values:
            continue
        yield title
        width = max(map(len, values))
        yield from (f"  {key.ljust(width)}  {_text(value)}" for key, value in values.items() if value != "")
        yield ""


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
