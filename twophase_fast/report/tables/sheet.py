"""A table before it is printed: cells keep the stored value beside the text a reader sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twophase_fast.report.numbers import ascii_number, pretty
from twophase_fast.report.spread import Spread


@dataclass(frozen=True)
class Cell:
    """A number over repeats, one number, or a word.

    Attributes:
        values: The numbers as stored: none (not evaluated), one, or one per seed.
        word: Text shown instead of a number.
    """

    values: tuple[float, ...] = ()
    word: str | None = None

    @property
    def mean(self) -> float:
        """Mean over the repeats, nan where there are none."""
        return sum(self.values) / len(self.values) if self.values else float("nan")

    @property
    def ends(self) -> tuple[float, float] | None:
        """Lowest and highest value where the repeats differ."""
        low, high = min(self.values, default=0.0), max(self.values, default=0.0)
        return (low, high) if low < high else None

    @property
    def shown(self) -> str:
        """The mean, or the word, as the page prints it."""
        return pretty(self.mean) if self.word is None else self.word

    @property
    def range_shown(self) -> str:
        """The range as the page prints it, empty where there is none."""
        return f"{pretty(self.ends[0], 2)} – {pretty(self.ends[1], 2)}" if self.ends else ""

    @property
    def ascii(self) -> str:
        """Mean and range as the terminal prints them."""
        if self.word is not None:
            return self.word
        text = ascii_number(self.mean)
        return f"{text} [{ascii_number(self.ends[0], 2)}, {ascii_number(self.ends[1], 2)}]" if self.ends else text


@dataclass(frozen=True)
class Sheet:
    """A titled table; every row has as many cells as there are columns.

    Attributes:
        title: What the rows are.
        columns: Their headings.
        rows: The cells.
        note: What a reader must know about the numbers.
        page_only: Columns that the terminal has no room for.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    page_only: frozenset[str] = frozenset()


def over_seeds(spread: Spread | None) -> Cell:
    """Return the cell of a spread, an empty one for None."""
    return Cell(spread.values) if spread else Cell()


def number(value: float) -> Cell:
    """Return the cell of one number (nan: not evaluated)."""
    return Cell(() if value != value else (float(value),))


def word(text: object) -> Cell:
    """Return a cell that shows the text (labels, steps, counts)."""
    return Cell(word=f"{text:,}" if isinstance(text, int) else str(text))
