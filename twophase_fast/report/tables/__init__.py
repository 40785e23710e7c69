"""Tables of a report: built once as `Sheet`, printed as text (`summary_tables`) or as HTML by the page's template."""

from twophase_fast.report.tables.chaos import ceiling_sheet, fall_sheet, perturbation_sheet, twin_sheets
from twophase_fast.report.tables.cone import probe_sheets
from twophase_fast.report.tables.sheet import Cell, Sheet
from twophase_fast.report.tables.text import summary_tables

__all__ = [
    "Cell",
    "Sheet",
    "ceiling_sheet",
    "fall_sheet",
    "perturbation_sheet",
    "probe_sheets",
    "summary_tables",
    "twin_sheets",
]
