"""Tables of the twin runs."""

from __future__ import annotations

import numpy as np

from twophase_fast.report.data import MAIN, Run, Table, rows, unique, where
from twophase_fast.report.findings.control import control_maxima
from twophase_fast.report.findings.equal_horizon import compare_all, twins_only
from twophase_fast.report.findings.verdict import fall
from twophase_fast.report.numbers import count
from twophase_fast.report.spread import spreads
from twophase_fast.report.tables.sheet import Cell, Sheet, number, over_seeds, word

TWIN_COLUMNS = {
    "dissimilarity": "C",
    "distance": "distance",
    "relative_distance": "relative distance",
    "barrier": "barrier",
    "disagreement": "disagreement",
}


def twin_sheets(run: Run) -> list[Sheet]:
    """Return, per variant, C, distance, barrier and disagreement of every (spawn step, horizon), control twin last."""
    return [sheet for variant in run.variants if (sheet := _twin_sheet(run, variant)) is not None]


def _twin_sheet(run: Run, variant: str) -> Sheet | None:
    table = twins_only(run.table("twins"), variant)
    if not rows(table):
        return None
    columns = [name for name in TWIN_COLUMNS if name in table]
    grids = {name: spreads(table, ("spawn_step", "horizon"), name) for name in columns}
    cells = sorted(zip(table["spawn_step"].tolist(), table["horizon"].tolist(), strict=True))
    body = [
        [word(int(spawn)), word(int(horizon)), *(over_seeds(grids[name].get((spawn, horizon))) for name in columns)]
        for spawn, horizon in dict.fromkeys(cells)
    ]
    body.append(_control_row(run, variant, columns))
    return Sheet(
        f"Twin runs, {run.label(variant)}",
        ["t₀", "h", *(TWIN_COLUMNS[name] for name in columns)],
        body,
        f"t₀: spawn step; h: steps since (horizon). Mean and range over {count(len(unique(table, 'seed')), 'seed')}; "
        "the control row is the largest value of all its cells.",
        frozenset({TWIN_COLUMNS["relative_distance"]}),
    )


def _control_row(run: Run, variant: str, columns: list[str]) -> list[Cell]:
    controls = where(run.table("twins"), variant=variant, control=1)
    if not rows(controls):
        return [word("control"), word("not run"), *(Cell() for _ in columns)]
    return [word("control"), word("all"), *(number(value) for value in control_maxima(controls, columns).values())]


def fall_sheet(run: Run) -> Sheet | None:
    """Return C(earliest)/C(latest) at every horizon, seed by seed, for main and control."""
    found = [
        (variant, entry)
        for variant in run.variants
        for entry in compare_all(run.table("twins"), variant, "dissimilarity")
    ]
    if not found:
        return None
    seeds = sorted({seed for _, entry in found for seed in entry.first})
    body = [
        [word(run.label(variant)), word(entry.horizon), word(entry.earliest), word(entry.latest)]
        + [number(fall(entry.first[s], entry.last[s])) if s in entry.first else Cell() for s in seeds]
        for variant, entry in found
    ]
    columns = ["runs", "h", "earliest t₀", "latest t₀", *(f"seed {seed}" for seed in seeds)]
    return Sheet("Fall of C at equal horizon: C(earliest t₀) / C(latest t₀)", columns, body, "Below 1: C grew.")


def ceiling_sheet(run: Run) -> Sheet | None:
    """Return the distances between independently seeded runs, the ceiling for C and disagreement."""
    table = where(run.table("ceilings"), variant=MAIN)
    if not rows(table):
        return None
    names = [name for name in ("dissimilarity", "distance", "relative_distance", "disagreement") if name in table]
    grids = {name: spreads(table, ("step",), name, repeat="seed_b") for name in names}
    body = [
        [word(int(step)), *(over_seeds(grids[name].get((step,))) for name in names)] for step in unique(table, "step")
    ]
    return Sheet(
        "Ceiling: independently seeded runs",
        ["step", *(TWIN_COLUMNS[name] for name in names)],
        body,
        "Mean and range over pairs of runs.",
    )


def perturbation_sheet(run: Run) -> Sheet | None:
    """Return the requested and the realised perturbation of every twin."""
    table = where(run.table("twins"), control=0)
    if not rows(table) or "realised_norm" not in table:
        return None
    columns = [
        "runs",
        "spawn step t₀",
        "perturbation",
        "requested norm",
        "realised norm",
        "changed entries",
        "of",
        "share",
    ]
    groups = sorted(dict.fromkeys(_twin_keys(table)), key=lambda key: run.variants.index(key[0]))
    body = [
        _perturbation_row(run, where(table, variant=v, spawn_step=t, perturbation=p), v, t, p) for v, t, p in groups
    ]
    return Sheet("Perturbations as realised", columns, body, "Mean and range over seeds, at the moment of spawning.")


def _twin_keys(table: Table) -> list[tuple[str, int, str]]:
    kinds = table.get("perturbation", np.full(rows(table), "unnamed"))
    return sorted(zip(table["variant"].tolist(), table["spawn_step"].tolist(), kinds.tolist(), strict=True))


def _perturbation_row(run: Run, table: Table, variant: str, spawn: int, kind: str) -> list[Cell]:
    table = {**table, "share": table["changed_entries"] / table["total_entries"]}
    names = ("requested_norm", "realised_norm", "changed_entries", "total_entries", "share")
    cells = [_per_seed(table, name) for name in names]
    return [word(run.label(variant)), word(int(spawn)), word(kind), *cells]


def _per_seed(table: Table, name: str) -> Cell:
    """Return one value per seed: a perturbation does not depend on the horizon."""
    first = dict(zip(table["seed"].tolist(), table[name].tolist(), strict=True))
    return Cell(tuple(float(value) for value in first.values() if np.isfinite(value)))
