"""One process of `make gpu-check`: runs the items of a stage and says on standard output what it found.

Every line is a JSON object: `{"begin": name, "index": k}`, then `{"note": {...}}` as figures come, then
`{"end": {...}}`. A kernel that breaks the GPU's context ends the process with status 3 after its `end`; the caller
starts another one behind it.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks import gpu_measure, gpu_models, gpu_pullback_rows, gpu_rows, gpu_smoke
from benchmarks.gpu_items import Item, Note

BROKEN = 3
LAST_LINES = 6  # of a traceback


def main(arguments: list[str]) -> int:
    """Run a stage's items; returns the exit code."""
    asked = _parser().parse_args(arguments)
    device = torch.device("cuda", torch.cuda.current_device()) if asked.device == "cuda" else torch.device(asked.device)
    part, parts = (int(number) for number in asked.part.split("/"))
    for index, item in enumerate(stage(asked.stage, device, asked.small)):
        if index < asked.first or index % parts != part:
            continue
        _say(begin=item.name, index=index)
        _say(end=attempt(item, warm=asked.warm))
        if not _sound(device):
            return BROKEN
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("smoke", "ops", "models"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for the interpreter")
    parser.add_argument("--first", type=int, default=0, help="index of the first item")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th item from the i-th on")
    parser.add_argument("--warm", action="store_true", help="only compile")
    return parser


def stage(name: str, device: torch.device, small: bool) -> Iterator[Item]:
    """Yield the items of a stage, the most telling ones first."""
    if name == "smoke":
        return gpu_smoke.items(device, small)
    return op_items(device, small) if name == "ops" else gpu_models.items(device, small)


def op_items(device: torch.device, small: bool) -> Iterator[Item]:
    """Yield the rate of a copy, then one item per row of `gpu_rows` and `gpu_pullback_rows`."""
    known: dict[str, float] = {}
    timer = gpu_measure.seconds if device.type == "cuda" else _once

    def copy(note: Note) -> dict[str, Any]:
        """Measure a device copy, beside which others stand."""
        known["rate"] = gpu_measure.copy_bandwidth(device, 1000 if small else 256_000_000, timer)
        return {"status": "timed", "bytes_per_second": known["rate"]}

    yield Item("copy", copy)
    for row in (*gpu_rows.rows(small), *gpu_pullback_rows.rows(small)):
        yield _op_item(row, device, timer, known)


def _op_item(row: gpu_rows.GpuRow, device: torch.device, timer: gpu_measure.Timer, known: dict[str, float]) -> Item:
    def run(note: Note) -> dict[str, Any]:
        """Measure the row, and say which launch configurations were timed on the way."""
        found = gpu_measure.measure(row, device, timer, known.get("rate"))
        return found | {"candidates": _candidates(device)}

    return Item(row.name, run, lambda: row.make(device)[0]())


def _candidates(device: torch.device) -> dict[str, Any]:
    """Return the milliseconds of the launch configurations that were timed since this was last asked."""
    if device.type != "cuda":
        return {}
    from twophase_fast.ops._triton import autotune

    found = dict(autotune.timings)
    autotune.timings.clear()
    return found


def _once(run: gpu_rows.Run) -> float:
    run()
    return 1.0


def attempt(item: Item, *, warm: bool = False) -> dict[str, Any]:
    """Run an item; what it raises is its result."""
    known: dict[str, Any] = {}

    def note(found: dict[str, Any]) -> None:
        known.update(found)
        _say(note=found)

    try:
        if warm:
            (item.warm or (lambda: item.run(lambda found: None)))()
            return {"status": "compiled"}
        return item.run(note)
    except Exception as error:
        lines = traceback.format_exc().strip().splitlines()[-LAST_LINES:]
        return known | {"status": "failed", "error_text": f"{type(error).__name__}: {error}"[:2000], "where": lines}


def _sound(device: torch.device) -> bool:
    """Return whether the GPU still works in this process."""
    try:
        gpu_measure.finish(device)
    except RuntimeError:
        return False
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return True


def _say(**line: Any) -> None:
    print(json.dumps(line, default=str), flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
