"""The tables and findings as plain text, for the end of a run in the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from os import PathLike

from twophase_fast.report.data import Run, read_run
from twophase_fast.report.findings import findings
from twophase_fast.report.summary import run_sentence
from twophase_fast.report.tables.chaos import ceiling_sheet, fall_sheet, twin_sheets
from twophase_fast.report.tables.cone import probe_sheets
from twophase_fast.report.tables.sheet import Sheet
from twophase_fast.storage import Trajectory

WIDTH = 100
_SUBSCRIPT = str.maketrans({"₀": "0", "₁": "1"})


def summary_tables(source: Trajectory | str | PathLike[str]) -> str:
    """Return what a run found as plain text: tables per spawn step and horizon and per probe step, then findings.

    Per spawn step and horizon: C, distance, barrier and disagreement as mean [lowest, highest] over seeds, the
    control twin (exactly 0) below, and the ceiling. Per probe step: S to the previous one, velocity (per iteration)
    and half-angle over the fixed window (degrees). "-" was not evaluated.

    Args:
        source: An open trajectory or the path of a stored one.

    Returns:
        Several lines, without a trailing newline. Effects that were not measured have no table and no sentence.
    """
    run = read_run(source)
    sheets = [*twin_sheets(run), fall_sheet(run), _end(ceiling_sheet(run)), *probe_sheets(run)]
    parts = [run_sentence(run), *(as_text(sheet) for sheet in sheets if sheet is not None), *_findings(run)]
    return "\n\n".join(parts)


def _end(sheet: Sheet | None) -> Sheet | None:
    """Return the last row alone: the page has the others."""
    return None if sheet is None else replace(sheet, rows=sheet.rows[-1:])


def as_text(sheet: Sheet) -> str:
    """Return a table as aligned text under its title, its note below."""
    shown = [index for index, column in enumerate(sheet.columns) if column not in sheet.page_only]
    header = [sheet.columns[index].translate(_SUBSCRIPT) for index in shown]
    body = [[row[index].ascii for index in shown] for row in sheet.rows]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in [header, *body]]
    rule = "-" * len(lines[0])
    note = textwrap.wrap(sheet.note.translate(_SUBSCRIPT), WIDTH)
    return "\n".join([sheet.title.translate(_SUBSCRIPT), lines[0], rule, *lines[1:], *note])


def _findings(run: Run) -> Iterator[str]:
    for finding in findings(run):
        lead = f"{finding.effect} ({finding.label}): "
        yield textwrap.fill(lead + finding.sentence.translate(_SUBSCRIPT), WIDTH, subsequent_indent="  ")
