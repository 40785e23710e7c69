"""The command line `twophase`: one file per command, imported only when that command runs.

Exit codes: 0 done, 1 failed, 2 bad usage; a failure is one line on stderr (`--debug` adds the traceback).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

import click

COMMANDS = {
    "demo": "Run both effects on embedded images in a few minutes; write runs/demo.h5 and a page.",
    "run": "Train, spawn twins, record kernels as a configuration says; write RUN.h5 and a page.",
    "entk": "Compute the empirical neural tangent kernel of your model on your data.",
    "report": "Make the HTML page of a stored run.",
    "info": "Say what is inside a run file.",
    "verify": "Check every byte of a run file.",
    "bench": "Check a kernel of your own against ours, then time both.",
    "doctor": "Say what this machine can do, which backend runs, and why not the others.",
}
"""Command -> the line `twophase --help` shows for it; the command is `command` in the module of that name."""


class Program(click.Group):
    """The group of commands: imports them late, turns errors into one line and an exit code."""

    debug = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its module now."""
        if cmd_name not in COMMANDS:
            return None
        return import_module(f"twophase_fast.cli.{cmd_name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, name the nearest.

        Raises:
            UsageError: There is no such command.
        """
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command '{args[0]}'; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run the program and exit with its code."""
        self.debug = False
        extra["standalone_mode"] = False
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            sys.exit(self._code(args, prog_name or "twophase", extra))

    def _code(self, args: Sequence[str] | None, name: str, extra: dict[str, Any]) -> int:
        try:
            result = super().main(args, name, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            return 2
        except click.ClickException as error:
            if self.debug and error.__cause__ is not None:
                raise
            bad_usage = isinstance(error, click.UsageError)
            return self._fail(_usage(error, name), 2) if bad_usage else self._fail(error.format_message(), 1)
        except click.Abort as error:
            return self._fail(str(error.__cause__ or "") or "interrupted", 1)
        except Exception as error:
            if self.debug or not isinstance(error, _expected()):
                raise
            return self._fail(str(error), 2 if type(error).__name__ == "ConfigError" else 1)
        return result if isinstance(result, int) else 0

    def _fail(self, reason: str, code: int) -> int:
        one_line = " ".join(line.strip() for line in reason.splitlines())
        click.echo(f"twophase: error: {one_line}", err=True)
        return code


def _expected() -> tuple[type[Exception], ...]:
    """Return the errors that are told in one line: the package's own, and those of the file system."""
    types = sys.modules.get("twophase_fast._types")
    return (OSError,) if types is None else (types.TwoPhaseError, OSError)


def _usage(error: click.UsageError, name: str) -> str:
    path = error.ctx.command_path if error.ctx else name
    return f"{error.format_message().rstrip('.?')} (see '{path} --help')"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"twophase: warning: {message}", err=True)


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"twophase {version('twophase_fast')}")
        except PackageNotFoundError:
            click.echo("twophase (run from the source tree, not installed)")
        ctx.exit()


@click.group(
    "twophase",
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nStart with:\n  twophase demo\nthen open runs/demo.html in a browser.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def main() -> None:
    """Exact empirical neural tangent kernels, twin runs and kernel trajectories of PyTorch models.

    'twophase COMMAND --help' explains a command, with an example.
    """
