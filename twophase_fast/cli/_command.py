"""What all commands share: an example in the help, `--debug`, and the rule that nothing is overwritten unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class Command(click.Command):
    """A command whose help ends with an example, and which has `--debug`."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        kwargs["epilog"] = "\b\nExample:\n  " + example.strip().replace("\n", "\n  ")
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_set_debug,
                help="Show the full traceback of an error.",
            )
        )


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().command.debug = True  # type: ignore[attr-defined]


def refuse_existing(path: Path, overwrite: bool, option: str = "--out") -> None:
    """Stop before any work if an output is already there.

    Args:
        path: The file that will be written.
        overwrite: The user allowed to replace it.
        option: The option that chooses another name.

    Raises:
        ClickException: The file exists.
    """
    if path.exists() and not overwrite:
        raise click.ClickException(f"{path} exists; replace it with --overwrite, or choose another name with {option}")


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace output files that exist.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
