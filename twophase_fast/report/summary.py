"""What was run, in one sentence and in a list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twophase_fast.report.data import LOW_LR, MAIN, Run, flatten, setting
from twophase_fast.report.numbers import count


def title(run: Run) -> str:
    """Return the page's title: model on data, or the file's name where the configuration does not say."""
    model, data = setting(run.config, "model"), setting(run.config, "data")
    return f"{model} on {data}" if model and data else run.name


def run_sentence(run: Run) -> str:
    """Return model, data, training recipe, seeds and controls in one sentence."""
    return f"{title(run)}: " + "; ".join(_recipe(run)) + "."


def _recipe(run: Run) -> Iterator[str]:
    if steps := setting(run.config, "steps"):
        yield f"{int(steps):,} steps" + _optimizer(run)
    if batch := setting(run.config, "batch_size"):
        yield f"batch size {int(batch)}"
    yield count(len({t.seed for t in run.trunks if t.variant == MAIN}) or 1, "seed")
    low = {t.seed for t in run.trunks if t.variant == LOW_LR}
    rate = run.learning_rate(LOW_LR)
    yield f"{count(len(low), 'low-learning-rate control')} (lr {rate:g})" if low else "no low-learning-rate control"


def _optimizer(run: Run) -> str:
    table = setting(run.config, "optimizer", {})
    if not table:
        return ""
    settings = ", ".join(f"{key.replace('_', ' ')} {v:g}" for key, v in table.items() if _is_number(v) and v)
    name = str(table.get("name", "optimizer")).upper()
    return f" of {name}" + (f" ({settings})" if settings else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def facts(run: Run) -> list[tuple[str, str]]:
    """Return the whole configuration as (dotted key, text) pairs."""
    return [(key, _text(value)) for key, value in flatten(run.config)]


def provenance(run: Run) -> list[tuple[str, str]]:
    """Return the stored provenance as (dotted key, text) pairs."""
    return [(key, _text(value)) for key, value in flatten(run.provenance)]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
