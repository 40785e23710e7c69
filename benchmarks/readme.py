"""The tables of README.md, made from a results file: nothing in them is typed by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import claims, plots

Row = dict[str, Any]
SCALING = f"""How time grows with the number of samples and with width, dashed what `plan` predicted:

![Seconds against the number of samples and against width](docs/{plots.PLOT.name})"""
README = Path(__file__).parent.parent / "README.md"
NAMES = {
    "twophase_fast": "twophase_fast",
    "twophase_fast high": 'precision="high"',
    "torch.func": "torch.func",
    "torch.func chunked": "torch.func, chunks of 8",
    "torchjd": "TorchJD autogram",
    "neural-tangents 1": "neural-tangents 1",
    "neural-tangents 2": "2",
    "neural-tangents 3": "3",
}
"""Peer, in the order of the table -> its column's title."""


def tables(results: dict[str, Any]) -> str:
    """All tables and the line about the machine, in Markdown; of a scaling run also its plot."""
    parts = [_machine(results)]
    if results["entk"]:
        parts += [_ratio_table(results["entk"]), _entk_table(results["entk"])]
    if results["ops"]:
        parts.append(_ops_table(results["ops"]))
    if results.get("scaling"):
        parts += [SCALING, _scaling_table(results["scaling"])]
    return "\n\n".join(parts)


def markers(block: str) -> tuple[str, str]:
    """The lines between which a block of the page is generated."""
    return f"<!-- {block}:start -->", f"<!-- {block}:end -->"


def update(readme: Path, text: str, block: str = "bench") -> None:
    """Replace what stands between a block's markers.

    Raises:
        ValueError: The file has not exactly one pair of markers.
    """
    start, end = markers(block)
    content = readme.read_text(encoding="utf-8")
    if content.count(start) != 1 or content.count(end) != 1 or content.index(start) > content.index(end):
        raise ValueError(f"{readme.name} needs one line {start} and, after it, one line {end}")
    before, rest = content.split(start)
    after = rest.split(end)[1]
    readme.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


def _machine(results: dict[str, Any]) -> str:
    environment = results["environment"]
    hardware, versions = environment["hardware"], environment["versions"]
    text = (
        f"Measured on {environment['time'][:10]}: {hardware['processor']}, {results['threads']} threads, "
        f"{hardware['cpu_capability']}; torch {versions['torch']}, Python {versions['python']}. "
        "Times are medians, a peer's compilation left out; peak memory is the increase over model and inputs, in a "
        "process of its own; the error is relative to float64 autograd, on some of the samples."
    )
    peaks = results["peaks"]
    if peaks:
        text += f" In the same run: GEMM in float32 {peaks['gemm_flops'] / 1e9:.0f} GFLOP/s"
        text += (
            f" and in bfloat16 {peaks['bf16_flops'] / 1e9:.0f}; memory reads {peaks['read_bandwidth'] / 1e9:.0f} GB/s."
        )
        text += " Shares are of the float32 peak."
    return text


def _by_title(rows: list[Row]) -> dict[str, list[Row]]:
    titles = dict.fromkeys(row["title"] for row in rows)
    return {title: [row for row in rows if row["title"] == title] for title in titles}


def _ratio_table(rows: list[Row]) -> str:
    """Ours at both precisions over the best peer, and peak memory beside unchunked torch.func's."""
    lines = [
        '| kernel | best peer | best peer ÷ ours | ÷ ours, `"high"` | peak, ours | peak, torch.func | ratio |',
        "|---|---|---|---|---|---|---|",
    ]
    for title, group in _by_title(rows).items():
        by_peer = {row["peer"]: row for row in group if row["status"] == "timed"}
        ours, high, whole = (by_peer.get(peer) for peer in (claims.OURS, claims.OURS_HIGH, claims.WHOLE))
        best = claims.best_peer(group)
        cells = [
            f"{best['peer']}, {_seconds(best['seconds'])}" if best else "–",
            *(f"**{best['seconds'] / mine['seconds']:.2g}**" if best and mine else "–" for mine in (ours, high)),
            *(_bytes(row["peak_bytes"]) if row and row["peak_bytes"] is not None else "–" for row in (ours, whole)),
        ]
        ratio = claims.memory_ratio(group, ours) if ours else None
        lines.append(f"| {title} | {' | '.join(cells)} | {'–' if ratio is None else f'{ratio:.2f}'} |")
    return "\n".join(lines)


def _entk_table(rows: list[Row]) -> str:
    peers = [peer for peer in NAMES if any(row["peer"] == peer for row in rows)]
    lines = [f"| kernel | {' | '.join(NAMES[peer] for peer in peers)} |", f"|---|{'---|' * len(peers)}"]
    for title, group in _by_title(rows).items():
        cells = {row["peer"]: _cell(row) for row in group}
        lines.append(f"| {title} | {' | '.join(cells.get(peer, '–') for peer in peers)} |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    if row["status"] != "timed":
        return row["status"]
    memory = "" if row["peak_bytes"] is None else f", {_bytes(row['peak_bytes'])}"
    return f"{_seconds(row['seconds'])}{memory}, error {row['error']:.0e}"


def _ops_table(rows: list[Row]) -> str:
    """Our kernels, each beside the fastest formulation in plain torch; one line per size, folded away.

    What a library computes for us on a GPU is left out; the file of results has it.
    """
    titles = ["op", "sizes", "backend", "time", "best in plain torch", "ratio", 'at `"high"`', "of GEMM peak"]
    titles += ["of read bandwidth", "error"]
    head = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    ours = [row for row in rows if not _in_torch(row) and row["backend"].split()[0] != "library"]
    lines = [_op_line(row, rows) for row in ours if not row["backend"].endswith(" high")]
    return "\n".join(["<details><summary>Every op by itself</summary>", "", *head, *lines, "", "</details>"])


def _op_line(row: Row, rows: list[Row]) -> str:
    sizes = " ".join(f"{name}={value}" for name, value in row["sizes"].items() if value)
    cells = _timed_op(row, rows) if row["status"] == "timed" else f"{row['status']} | | | | | "
    return f"| {row['op']} | {sizes} | {row['backend']} | {cells} | {row['error']:.0e} |"


def _in_torch(row: Row) -> bool:
    return row["backend"] == "reference" or row["backend"].startswith("torch ")


def _timed_op(row: Row, rows: list[Row]) -> str:
    same = [other for other in rows if (other["op"], other["sizes"]) == (row["op"], row["sizes"])]
    plain = [other for other in same if _in_torch(other) and other["status"] == "timed"]
    best = min(plain, key=lambda other: other["seconds"], default=None)
    high = next((other for other in same if other["backend"] == f"{row['backend']} high"), None)
    if high is not None and (high["status"] != "timed" or high["error"] == row["error"]):
        high = None  # it runs as "highest"
    name = "–" if best is None else f"{best['backend'].removeprefix('torch ')}, {_seconds(best['seconds'])}"
    ratios = " | ".join(
        "–" if best is None or one is None else f"**{best['seconds'] / one['seconds']:.2g}**" for one in (row, high)
    )
    gemm = f"{row['of_gemm']:.0%}" if "of_gemm" in row else ""
    return f"{_seconds(row['seconds'])} | {name} | {ratios} | {gemm} | {row['of_bandwidth']:.0%}"


def _scaling_table(rows: list[Row]) -> str:
    """Seconds of every point of a curve, the exponent over its last doubling, and the same of the prediction."""
    lines = ["| kernel | seconds at each size | last exponent | predicted |", "|---|---|---|---|"]
    for axis in plots.LABELS:
        for title, series in plots.timed_series(rows, axis).items():
            points = ", ".join(f"{row['value']}: {_seconds(row['seconds'])}" for row in series)
            exponents = (plots.slope(series, field) for field in ("seconds", "predicted"))
            cells = " | ".join("–" if value is None else f"{value:.2f}" for value in exponents)
            lines.append(f"| {title}, {plots.LABELS[axis]} | {points} | {cells} |")
    return "\n".join(lines)


def base_table(rows: list[Row], name: str) -> str:
    """This revision against another, with the ratio of their times (above 1: this one is faster)."""
    lines = [
        f"| | precision | this revision | {name} | ratio | error | error of {name} |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = row["status"]
        if row["status"] == "timed":
            figures = f"{_seconds(row['seconds'])} | {_seconds(row['base_seconds'])} | {row['ratio']:.2f} | "
            figures += f"{row['error']:.0e} | {row['base_error']:.0e}"
        lines.append(f"| {row['name']} | {row['precision']} | {figures} |")
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value >= 0.1 else f"{1000 * value:.2g} ms"


def _bytes(value: int) -> str:
    return f"{value / 1e9:.2g} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    update(README, tables(found), "scaling" if found.get("scaling") else "bench")
