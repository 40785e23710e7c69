"""One progress bar over all training steps of an experiment, on standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol

from tqdm import tqdm


class Counter(Protocol):
    """What counts training steps: a bar, or a worker's reports to the process with the bar."""

    def describe(self, text: str) -> None:
        """Say what is running."""

    def advance(self, steps: int = 1) -> None:
        """Count steps that were computed."""

    def skip(self, steps: int) -> None:
        """Count steps that an earlier session computed."""


class Progress:
    """Counts training steps and shows the time left.

    Args:
        total: Steps of all trunks and twins.
        show: True or False; None shows the bar on a terminal only.
    """

    def __init__(self, total: int, show: bool | None) -> None:
        hidden = not (sys.stderr.isatty() if show is None else show)
        self._bar = tqdm(total=total, unit="step", disable=hidden, file=sys.stderr, dynamic_ncols=True, smoothing=0.05)

    def describe(self, text: str) -> None:
        """Say what is running."""
        self._bar.set_description(text, refresh=False)

    def advance(self, steps: int = 1) -> None:
        """Count steps that were computed."""
        self._bar.update(steps)

    def skip(self, steps: int) -> None:
        """Count steps that an earlier session computed; they do not enter the rate."""
        if not self._bar.disable:
            self._bar.initial += steps
            self._bar.n += steps
            self._bar.refresh()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
