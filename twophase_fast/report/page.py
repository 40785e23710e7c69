"""The page: sections in order, rendered by the template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike

from jinja2 import Environment, PackageLoader, StrictUndefined

from twophase_fast.report import summary
from twophase_fast.report.data import Run, read_run
from twophase_fast.report.figures.block import Block
from twophase_fast.report.figures.chaos import chaos_blocks
from twophase_fast.report.figures.cone import cone_blocks
from twophase_fast.report.figures.learning import learning_blocks
from twophase_fast.report.findings import findings
from twophase_fast.report.limits import limits
from twophase_fast.report.style import DARK, LIGHT, css_variables
from twophase_fast.report.tables import ceiling_sheet, fall_sheet, perturbation_sheet, probe_sheets, twin_sheets
from twophase_fast.report.tables.sheet import Sheet
from twophase_fast.storage import Trajectory


@dataclass(frozen=True)
class Section:
    """A part of the page: heading, one or two sentences, figures, tables."""

    anchor: str
    title: str
    lead: str
    blocks: Sequence[Block] = field(default_factory=tuple)
    sheets: Sequence[Sheet] = field(default_factory=tuple)


CHAOS_LEAD = (
    "A twin gets the trunk's full state at spawn step t₀, its parameters changed by a small ε, and from then on the "
    "same data order and all other randomness. Whatever separates the two after h = t₁ − t₀ steps grew from ε. Values "
    "are compared at equal horizon h: a twin spawned late has had less time to drift, so at the end of training "
    "everything would fall with t₀ by construction."
)

CONE_LEAD = (
    "K(t) is the empirical neural tangent kernel at step t on a fixed probe set, and S(t, t′) = 1 − cos(K(t), K(t′)) "
    "the distance of two such kernels. A fall of S with t can come from smaller steps alone, so the low-learning-rate "
    "control and S per parameter distance stand beside it."
)


def render(source: Trajectory | str | PathLike[str]) -> str:
    """Return the page of a stored run as HTML.

    Args:
        source: An open trajectory or the path of a stored one.

    Returns:
        The complete document.
    """
    run = read_run(source)
    template = _environment().get_template("page.html")
    return template.render(
        title=summary.title(run),
        sentence=summary.run_sentence(run),
        findings=findings(run),
        sections=_sections(run),
        limits=limits(run),
        config=summary.facts(run),
        provenance=summary.provenance(run),
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
    )


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("twophase_fast.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _sections(run: Run) -> list[Section]:
    """Return the sections that have something to show."""
    sections = (
        Section(
            "chaos",
            "Chaos effect: twin runs",
            CHAOS_LEAD,
            chaos_blocks(run),
            _present([*twin_sheets(run), fall_sheet(run), ceiling_sheet(run), perturbation_sheet(run)]),
        ),
        Section("cone", "Cone effect: motion of the kernel", CONE_LEAD, cone_blocks(run), probe_sheets(run)),
        Section("learning", "Learning", "", learning_blocks(run)),
    )
    return [section for section in sections if section.blocks or section.sheets]


def _present(sheets: Iterable[Sheet | None]) -> list[Sheet]:
    return [sheet for sheet in sheets if sheet is not None]
