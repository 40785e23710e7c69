"""`twophase run`: an experiment from a configuration, its tables and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from twophase_fast.cli._command import Command, overwrite_option, refuse_existing

EXAMPLE = """twophase run --preset smoke
twophase run --preset demo --set optimizer.lr=0.05 --set "seeds=[0,1]" --out runs/slower.h5
twophase run --config my.toml --out runs/mine.h5
twophase run --config my.toml --out runs/mine.h5 --resume"""


@click.command("run", cls=Command, example=EXAMPLE)
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml", help="The configuration.")
@click.option(
    "--preset", metavar="NAME", help="A configuration that comes with the package: demo, smoke (seconds), ..."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one setting (dotted key, TOML value); can be given many times.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="RUN.h5", help="The run file  [default: runs/NAME.h5]")
@click.option("--resume", is_flag=True, help="Go on with a run that was cut off; the numbers come out the same.")
@overwrite_option
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="Where Fashion-MNIST or CIFAR-10 is."
)
@click.option("--page/--no-page", default=True, show_default=True, help="Also write RUN.html.")
@click.option("--quiet", is_flag=True, help="No progress bar, no tables.")
def command(
    config: Path | None,
    preset: str | None,
    changes: tuple[str, ...],
    out: Path | None,
    resume: bool,
    overwrite: bool,
    data_dir: Path | None,
    page: bool,
    quiet: bool,
) -> None:
    """Train, spawn twin runs and record kernels as a configuration says.

    Everything measured goes into RUN.h5, from which the tables printed at the end and the page are made.
    """
    settings, name = _settings(config, preset)
    settings = _changed(settings, changes)
    run_experiment(settings, out or Path("runs", f"{name}.h5"), resume, overwrite, data_dir, page, quiet)


def _settings(config: Path | None, preset: str | None) -> tuple[dict[str, Any], str]:
    """Return the configuration, and the name that the run file gets by default.

    Raises:
        UsageError: Neither or both were given.
    """
    from twophase_fast.experiments import load_preset, read_config

    if config is not None and preset is None:
        return read_config(config), config.stem
    if preset is not None and config is None:
        return load_preset(preset), preset
    raise click.UsageError("give either --config FILE.toml or --preset NAME")


def _changed(settings: dict[str, Any], changes: tuple[str, ...]) -> dict[str, Any]:
    from twophase_fast.experiments import set_value

    for change in changes:
        settings = set_value(settings, change)
    return settings


def run_experiment(
    settings: dict[str, Any],
    out: Path,
    resume: bool,
    overwrite: bool,
    data_dir: Path | None,
    page: bool,
    quiet: bool,
) -> None:
    """Run, then print the tables and write the page.

    Args:
        settings: The configuration.
        out: The run file.
        resume: Go on with a run that was cut off.
        overwrite: Replace files that exist.
        data_dir: Folder with data that does not ship with the package.
        page: Also write the page, beside the run file.
        quiet: No progress bar and no tables.

    Raises:
        UsageError: Both `resume` and `overwrite`.
        ClickException: A file is in the way.
    """
    from twophase_fast.experiments import run_config

    html = out.with_suffix(".html")
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite contradict each other; give one of them")
    if not resume:
        refuse_existing(out, overwrite)
        if page:
            refuse_existing(html, overwrite)
    run_config(settings, out, resume=resume, overwrite=overwrite, data_dir=data_dir, progress=False if quiet else None)
    _finish(out, html if page else None, quiet)


def _finish(out: Path, html: Path | None, quiet: bool) -> None:
    from twophase_fast.report import summary_tables, write_report

    if not quiet:
        click.echo(summary_tables(out) + "\n")
    click.echo(f"wrote {out}")
    if html is not None:
        click.echo(f"wrote {write_report(out, html)}")
