"""Compile every Triton kernel configuration for sm_80, sm_90 and gfx942 without a GPU; write what each needs.

python -m benchmarks.triton_report            results/triton_aot.json and results/triton_aot.md
python -m benchmarks.triton_report --op gram  print the rows of one op; writes nothing
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
    parser.add_argument("--op", default=None, help="only this op's rows")
    options = parser.parse_args(arguments)
    rows = [row for row in aot.rows() if options.op in (None, row.op)]
    results = [(row, aot.inspect(row, target)) for row in rows for target in row.targets]
    complaints = [f"{row} on {result.target}: {why}" for row, result in results for why in broken(row, result)]
    table = markdown([result for _, result in results])
    if options.op:
        print(table)
    else:
        save([result for _, result in results], table)
    print(*complaints, f"{len(results)} compilations, {len(complaints)} broken promises", sep="\n")
    return 1 if complaints else 0


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


def save(results: list[aot.AotResult], table: str) -> None:
    """Write the JSON file and the Markdown table beside it."""
    content = {"triton": version("triton"), "rows": [result.as_dict() for result in results]}
    (RESULTS / f"{NAME}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    head = (
        f"# Triton kernels compiled ahead of time\n\nWritten by `python -m benchmarks.triton_report` with Triton "
        f"{version('triton')}; no GPU was involved. Registers per thread; spills in bytes (AMD: registers) per thread; "
        "shared memory per program.\n\n"
    )
    (RESULTS / f"{NAME}.md").write_text(head + table + "\n", encoding="utf-8")


def _line(result: aot.AotResult) -> str:
    loop = ["wgmma"] if result.loop_wgmma else ["matrix unit"] if result.loop_tensor_core else []
    loop += ["asynchronous copies"] if result.loop_async_copy else []
    cells = [result.op, result.kernel, result.label, result.launch, result.target]
    cells += [str(number) for number in (result.registers, result.spills, result.shared)]
    return f"| {' | '.join([*cells, ', '.join(loop)])} |"


if __name__ == "__main__":
    raise SystemExit(main())
