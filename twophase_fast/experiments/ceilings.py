"""Distances between independently seeded trunks: the ceiling for what twins can reach."""

from __future__ import annotations

import copy
from itertools import combinations

from twophase_fast.experiments.plan import TrunkName
from twophase_fast.experiments.session import Session
from twophase_fast.experiments.twins import Row, disagreement
from twophase_fast.measures import parameter_dissimilarity, parameter_distance

TABLE = "ceilings"


def measure_ceilings(session: Session) -> None:
    """Compare every pair of seeds of a variant at every step at which twins are compared with their trunk."""
    for variant in {trunk.variant: None for trunk in session.plan.trunks}:
        trunks = [trunk for trunk in session.plan.trunks if trunk.variant == variant]
        if len(trunks) > 1 and not session.rows(TABLE, variant=variant):
            session.progress.describe(f"{variant}: distances between seeds")
            session.trajectory.append_rows(TABLE, _rows(session, trunks))


def _steps(session: Session) -> list[int]:
    plan = session.plan
    compared = {t0 + h for t0 in plan.spawn_steps for h in plan.horizons(t0)}
    return sorted(compared | {0, plan.steps})


def _rows(session: Session, trunks: list[TrunkName]) -> list[Row]:
    first = session.recipe.loop(trunks[0]).model
    second = copy.deepcopy(first)
    rows: list[Row] = []
    for a, b in combinations(trunks, 2):
        for step in _steps(session):
            logits = session.trunk_logits(a, step, first), session.trunk_logits(b, step, second)
            first.load_state_dict(session.workspace.model(a, step))
            second.load_state_dict(session.workspace.model(b, step))
            distance = parameter_distance(first, second)
            rows.append(
                {
                    "variant": a.variant,
                    "seed_a": a.seed,
                    "seed_b": b.seed,
                    "step": step,
                    "dissimilarity": parameter_dissimilarity(first, second),
                    "distance": distance.total,
                    "relative_distance": distance.relative,
                    "disagreement": disagreement(*logits),
                }
            )
    return rows
