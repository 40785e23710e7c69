"""The tables of README.md, made from a results file: nothing in them is typed by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import claims

Row = dict[str, Any]
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
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
    """All tables and the line about the machine, in Markdown."""
    parts = [_machine(results)]
    if results["entk"]:
        parts += [_ratio_table(results["entk"]), _entk_table(results["entk"])]
    if results["ops"]:
        parts.append(_ops_table(results["ops"], results["peaks"]))
    return "\n\n".join(parts)


def update(readme: Path, text: str) -> None:
    """Replace what stands between the markers.

    Raises:
        ValueError: The file has not exactly one pair of markers.
    """
    content = readme.read_text(encoding="utf-8")
    if content.count(START) != 1 or content.count(END) != 1 or content.index(START) > content.index(END):
        raise ValueError(f"{readme.name} needs one line {START} and, after it, one line {END}")
    before, rest = content.split(START)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


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
        text += f" In the same run: float32 GEMM {peaks['gemm_flops'] / 1e9:.0f} GFLOP/s,"
        text += f" memory reads {peaks['read_bandwidth'] / 1e9:.0f} GB/s."
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


def _ops_table(rows: list[dict[str, Any]], peaks: dict[str, float]) -> str:
    lines = [
        "| op | sizes | backend | time | of GEMM peak | of read bandwidth | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sizes = " ".join(f"{name}={value}" for name, value in row["sizes"].items() if value)
        if row["status"] != "timed":
            lines.append(f"| {row['op']} | {sizes} | {row['backend']} | {row['status']} | | | {row['error']:.0e} |")
            continue
        gemm = f"{row['of_gemm']:.0%}" if "of_gemm" in row else ""
        lines.append(
            f"| {row['op']} | {sizes} | {row['backend']} | {_seconds(row['seconds'])} | {gemm} | "
            f"{row['of_bandwidth']:.0%} | {row['error']:.0e} |"
        )
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
    update(README, tables(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
