"""`twophase verify`: check a run file."""

from __future__ import annotations

from pathlib import Path

import click

from twophase_fast.cli._command import Command


@click.command("verify", cls=Command, example="twophase verify runs/demo.h5")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN.h5")
def command(run: Path) -> int:
    """Read everything a run file holds and list what is wrong with it.

    Checks the checksum of every chunk, shapes and steps. Exit code 1 if anything is wrong.
    """
    from twophase_fast.storage import verify

    problems = verify(run)
    for problem in problems:
        click.echo(problem, err=True)
    if not problems:
        click.echo(f"{run}: everything is as it should be")
    return int(bool(problems))
