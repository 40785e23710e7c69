"""What a stage of `make gpu-check` consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Note = Callable[[dict[str, Any]], None]
"""Takes what is known of an item so far, so that it is not lost with the process."""


@dataclass(frozen=True)
class Item:
    """One thing to check or measure.

    Attributes:
        name: What it is, in words.
        run: Does it; returns what was found, `status` among it, and notes parts of it on the way.
        warm: Compiles what `run` needs, as far as that can be done beside other processes; None: `run` does.
    """

    name: str
    run: Callable[[Note], dict[str, Any]]
    warm: Callable[[], object] | None = None
