"""`twophase report`: the page of a stored run."""

from __future__ import annotations

from pathlib import Path

import click

from twophase_fast.cli._command import Command, overwrite_option, refuse_existing


@click.command(
    "report", cls=Command, example="twophase report runs/demo.h5 --out demo.html --headline demo.png --overwrite"
)
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN.h5")
@click.option("--out", type=click.Path(path_type=Path), metavar="PAGE.html", help="The page  [default: RUN.html]")
@click.option(
    "--headline", type=click.Path(path_type=Path), metavar="FIGURE.png", help="Also write the headline figure."
)
@click.option("--tables", is_flag=True, help="Print the tables and findings too.")
@overwrite_option
def command(run: Path, out: Path | None, headline: Path | None, tables: bool, overwrite: bool) -> None:
    """Make one self-contained HTML page about a stored run.

    Figures, tables and a sentence per effect, or that there is none; no network access, nothing but the page.
    """
    from twophase_fast.report import headline_figure, summary_tables, write_report

    page = out or run.with_suffix(".html")
    refuse_existing(page, overwrite)
    if headline is not None:
        refuse_existing(headline, overwrite, "--headline")
    if tables:
        click.echo(summary_tables(run) + "\n")
    click.echo(f"wrote {write_report(run, page)}")
    if headline is not None:
        click.echo(f"wrote {headline_figure(run, headline)}")
