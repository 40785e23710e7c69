"""Compile every Triton kernel configuration for sm_80, sm_90 and gfx942 without a GPU; write what each needs.

python -m benchmarks.triton_report            results/triton_aot.json and results/triton_aot.md
python -m benchmarks.triton_report --op gram  print the rows of one op; with --save, replace them in the report
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

from twophase_fast.ops._triton import aot

RESULTS = Path(__file__).parent / "results"
NAME = "triton_aot"
_COLUMNS = ("op", "kernel", "row", "launch", "target", "registers", "spills", "shared, bytes", "loop")


def main(arguments: list[str] | None = None) -> int:
    """Compile, print what is wrong, and write the report; returns 1 if a row breaks its promise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.triton_report", description=__doc__.splitlines()[0])
    parser.add_argument("--op", nargs="+", default=None, help="compile only these ops' rows, and print them")
    parser.add_argument("--save", action="store_true", help="with --op: also replace their rows in the report")
    options = parser.parse_args(arguments)
    pairs = [(row, target) for row in aot.rows() for target in row.targets]
    compiled = {
        (str(row), target): aot.inspect(row, target)
        for row, target in pairs
        if options.op is None or row.op in options.op
    }
    complaints = [
        f"{row} on {target}: {why}"
        for row, target in pairs
        if (str(row), target) in compiled
        for why in broken(row, compiled[str(row), target])
    ]
    if options.op:
        print(markdown(list(compiled.values())))
    if options.op is None or options.save:
        known = {} if options.op is None else committed()
        save([compiled.get((str(row), target)) or known[key(row, target)] for row, target in pairs])
    print(*complaints, f"{len(compiled)} compilations, {len(complaints)} broken promises", sep="\n")
    return 1 if complaints else 0


def key(row: aot.AotRow, target: str) -> tuple[str, ...]:
    """Return what tells a row of the report apart."""
    return row.op, row.kernel.__name__, row.label, str(row.launch), target


def committed() -> dict[tuple[str, ...], aot.AotResult]:
    """Return the rows of the report as it is."""
    entries = json.loads((RESULTS / f"{NAME}.json").read_text(encoding="utf-8"))["rows"]
    results = [aot.AotResult(**entry) for entry in entries]
    return {(r.op, r.kernel, r.label, r.launch, r.target): r for r in results}


def broken(row: aot.AotRow, result: aot.AotResult) -> list[str]:
    """Return the promises that a compiled row breaks: no spills, shared memory that fits, wgmma where it is due."""
    limit = aot.TARGETS[result.target].shared_limit
    reasons = [f"spills {result.spills}"] if result.spills else []
    if result.shared > limit:
        reasons.append(f"needs {result.shared} bytes of shared memory, {limit} are there")
    if row.wgmma and result.target == "sm_90" and not result.loop_wgmma:
        reasons.append("no wgmma in a loop")
    return reasons


def markdown(results: list[aot.AotResult]) -> str:
    """Return the table, one line per row and target."""
    return "\n".join(
        [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|", *(_line(result) for result in results)]
    )


def save(results: list[aot.AotResult]) -> None:
    """Write the JSON file and the Markdown table beside it."""
    content = {"triton": version("triton"), "rows": [result.as_dict() for result in results]}
    (RESULTS / f"{NAME}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    head = (
        f"# Triton kernels compiled ahead of time\n\nWritten by `python -m benchmarks.triton_report` with Triton "
        f"{version('triton')}; no GPU was involved. Registers per thread; spills in bytes (AMD: registers) per thread; "
        "shared memory per program.\n\n"
    )
    (RESULTS / f"{NAME}.md").write_text(head + markdown(results) + "\n", encoding="utf-8")


def _line(result: aot.AotResult) -> str:
    loop = ["wgmma"] if result.loop_wgmma else ["matrix unit"] if result.loop_tensor_core else []
    loop += ["asynchronous copies"] if result.loop_async_copy else []
    cells = [result.op, result.kernel, result.label, result.launch, result.target]
    cells += [str(number) for number in (result.registers, result.spills, result.shared)]
    return f"| {' | '.join([*cells, ', '.join(loop)])} |"


if __name__ == "__main__":
    raise SystemExit(main())
