"""`twophase bench`: anybody's kernel against ours, checked before it is timed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twophase_fast.cli._command import Command, json_option

if TYPE_CHECKING:
    from twophase_fast.ops._contest import Contest, Outcome

OURS = "ours"
EXAMPLE = """twophase bench --op gram --shape n=640,p=4096 --against mymodule:my_gram
twophase bench --op factored_gram --shape n=64,t=1,d=1024,p=1024 --dtype float64"""


def _sizes(_: click.Context, __: click.Parameter, text: str) -> dict[str, int]:
    """Read `n=640,p=4096`.

    Raises:
        BadParameter: The text is not of that form, or gives a size twice.
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(name.strip() and size.strip().isdecimal() for name, _, size in pairs):
        raise click.BadParameter(f"{text!r} is not of the form n=640,p=4096")
    if len({name.strip() for name, _, _ in pairs}) < len(pairs):
        raise click.BadParameter(f"{text!r} gives a size twice")
    return {name.strip(): int(size) for name, _, size in pairs}


@click.command("bench", cls=Command, example=EXAMPLE)
@click.option("--op", required=True, metavar="NAME", help="The op, such as gram: one that returns something new.")
@click.option("--shape", "sizes", default="", callback=_sizes, metavar="n=640,p=4096,...", help="Sizes to replace.")
@click.option("--against", metavar="MODULE:FUNCTION", help="Your kernel  [default: the reference in plain torch]")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Element type of the inputs.",
)
@click.option(
    "--precision",
    type=click.Choice(["highest", "high", "medium"]),
    default="highest",
    show_default=True,
    help="Accuracy asked of both.",
)
@click.option("--repeat", type=click.IntRange(1), default=20, show_default=True, help="Timed calls of each.")
@json_option
def command(
    op: str, sizes: dict[str, int], against: str | None, dtype: str, precision: str, repeat: int, as_json: bool
) -> None:
    """Check a kernel of your own against ours, then time both by turns.

    FUNCTION gets the op's arguments that differ from their defaults, as 'help(twophase_fast.ops.NAME)' shows them:
    my_gram(x) or, with --shape m=..., my_gram(x, y). It returns what the op returns; for pair_moments a dict of its
    fields will do. The inputs are random, the same every time.

    The truth is the op's definition in float64. A result that is more than twice as wrong as plain torch (or as
    --precision promises) is refused and not timed: the error figure is printed and the exit code is 1.
    """
    rival = None if against is None else _find(against)
    contest = _contest_of(op, sizes, dtype, precision)
    theirs = contest.ours("reference") if rival is None else _named(against, contest.theirs(rival))
    outcomes = contest.time({OURS: contest.ours(), against or "reference": theirs}, repeat)
    found = _found(contest, outcomes, dtype, repeat)
    click.echo(json.dumps(found, indent=2) if as_json else _table(found))


def _contest_of(op: str, sizes: dict[str, int], dtype: str, precision: str) -> Contest:
    """Make inputs and truth.

    Raises:
        UsageError: There is no such op or size, or the op does not take the dtype.
    """
    import torch

    from twophase_fast._types import InputError
    from twophase_fast.ops import _contest

    try:
        return _contest.Contest(_contest.workload(op, sizes), getattr(torch, dtype), precision)
    except InputError as error:
        raise click.UsageError(str(error)) from error


def _find(name: str) -> Callable[..., Any]:
    """Import a function from the present folder or an installed package.

    Raises:
        BadParameter: There is none of that name.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), attribute, None) if attribute else None
    except Exception as error:  # whatever runs when a module of theirs is imported
        raise click.BadParameter(f"cannot import {module_name!r} ({error}); is it installed or in {here}?") from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise click.BadParameter(f"{name!r} names no function; expected module:function")
    return function


def _named(name: str | None, call: Callable[[], Any]) -> Callable[[], Any]:
    """Tell an exception of a rival as its own, in one line.

    Raises:
        ClickException: The rival raised.
    """

    def guarded() -> Any:
        try:
            return call()
        except Exception as error:
            raise click.ClickException(f"{name} raised {type(error).__name__}: {error}; it was not timed") from error

    return guarded


def _found(contest: Contest, outcomes: list[Outcome], dtype: str, repeat: int) -> dict[str, Any]:
    import torch

    ours, theirs = outcomes
    return {
        "op": contest.row.op,
        "sizes": dict(contest.row.sizes),
        "dtype": dtype,
        "precision": contest.precision,
        "threads": torch.get_num_threads(),
        "repeat": repeat,
        "allowed_error": contest.allowed,
        "results": [vars(outcome) for outcome in outcomes],
        "theirs_over_ours": theirs.seconds / ours.seconds,
    }


def _table(found: dict[str, Any]) -> str:
    sizes = " ".join(f"{name}={size}" for name, size in found["sizes"].items())
    width = max(len(result["name"]) for result in found["results"])
    lines = [f"{found['op']}  {sizes}  {found['dtype']}  precision {found['precision']}  {found['threads']} threads"]
    lines += [
        f"  {result['name']:{width}}  {1000 * result['seconds']:10.3f} ms   error {result['error']:.1e}"
        for result in found["results"]
    ]
    theirs = found["results"][1]
    ratio = found["theirs_over_ours"]
    verdict = f"{theirs['name']} takes {ratio:.2f} times as long as ours"
    return "\n".join([*lines, f"{verdict} (medians of {found['repeat']}; error allowed: {found['allowed_error']:.1e})"])
