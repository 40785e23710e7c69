"""`twophase demo`: the preset `demo`."""

from __future__ import annotations

from pathlib import Path

import click

from twophase_fast.cli._command import Command, overwrite_option


@click.command("demo", cls=Command, example="twophase demo\ntwophase demo --out runs/again.h5")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs", "demo.h5"),
    show_default=True,
    metavar="RUN.h5",
    help="The run file; the page goes beside it.",
)
@click.option("--resume", is_flag=True, help="Go on with a demo that was cut off.")
@overwrite_option
@click.option("--quiet", is_flag=True, help="No progress bar, no tables.")
def command(out: Path, resume: bool, overwrite: bool, quiet: bool) -> None:
    """Show both effects on real images that come with the package, in a few minutes.

    Trains a small convolutional network on a Fashion-MNIST subset with three seeds and a low-learning-rate
    control, spawns twin runs, records kernels, prints what came out and writes a page with figures. The same as
    'twophase run --preset demo'.
    """
    from twophase_fast.cli.run import run_experiment
    from twophase_fast.experiments import load_preset

    run_experiment(load_preset("demo"), out, resume, overwrite, None, True, quiet)
