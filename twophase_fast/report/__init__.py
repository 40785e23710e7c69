"""Reports: one HTML page, one figure, or plain-text tables, from a stored trajectory only.

The page and the figure need matplotlib and jinja2 (`pip install 'twophase_fast[report]'`), the tables do not.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from twophase_fast._types import TwoPhaseError
from twophase_fast.report.tables.text import summary_tables
from twophase_fast.storage import Trajectory

__all__ = ["headline_figure", "summary_tables", "write_report"]


def write_report(source: Trajectory | str | PathLike[str], out: str | PathLike[str]) -> Path:
    """Write one self-contained HTML page about a stored run: figures, tables, and a sentence per effect.

    The page asks for nothing from outside, follows the reader's light or dark scheme, and is readable on a phone.
    What was not measured has no section.

    Args:
        source: An open trajectory or the path of a stored one.
        out: The page to write; missing folders are made, an existing page is replaced.

    Returns:
        The path of the page.

    Raises:
        TwoPhaseError: matplotlib or jinja2 is not installed.
        StorageError: The run cannot be read or the page cannot be written.
    """
    _require("matplotlib", "jinja2")
    from twophase_fast.report.files import replacing
    from twophase_fast.report.page import render

    page = render(source)
    with replacing(Path(out)) as path:
        path.write_text(page, encoding="utf-8")
    return Path(out)


def headline_figure(source: Trajectory | str | PathLike[str], out: str | PathLike[str]) -> Path:
    """Write the headline figure (C at equal horizon, the S matrix, half-angle) as a PNG, for a README.

    Args:
        source: An open trajectory or the path of a stored one.
        out: The image to write; missing folders are made, an existing image is replaced.

    Returns:
        The path of the image.

    Raises:
        TwoPhaseError: matplotlib is not installed, or the run holds nothing to draw.
        StorageError: The run cannot be read or the image cannot be written.
    """
    _require("matplotlib")
    from twophase_fast.report.headline import draw_headline

    return draw_headline(source, Path(out))


def _require(*modules: str) -> None:
    """Say at once, and by name, which optional package is missing.

    Raises:
        TwoPhaseError: One of the modules cannot be imported.
    """
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise TwoPhaseError(
            f"a report needs {' and '.join(missing)}, not installed here; "
            "install with: pip install 'twophase_fast[report]'"
        )
