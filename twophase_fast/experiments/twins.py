"""Train the twins of one trunk, one by one, and compare each with the trunk at its horizons."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from twophase_fast.experiments.plan import Chaos, TrunkName
from twophase_fast.experiments.session import Session, predict
from twophase_fast.measures import disagreement_rate, loss_barrier, parameter_dissimilarity, parameter_distance
from twophase_fast.training import DivergedError, Perturbation, Realised, SupervisedLoop, generator_for, perturb

Row = dict[str, int | float | str]
TABLE = "twins"


def train_twins(session: Session, trunk: TrunkName) -> None:
    """Train all twins of a trunk that are not in the table yet; each adds its rows in one piece when it ends.

    Raises:
        DivergedError: A twin's loss is not finite; the rows of the twins before it are kept.
    """
    pending = [twin for twin in session.plan.twins if not _done(session, trunk, *twin)]
    for t0, _ in set(session.plan.twins) - set(pending):
        session.progress.skip(max(session.plan.horizons(t0)))
    if not pending:
        return
    loop = session.recipe.loop(trunk)
    holder = copy.deepcopy(loop.model)
    for t0, control in pending:
        session.progress.describe(f"{trunk}: {'control twin' if control else 'twin'} from step {t0}")
        rows = _Twin(session, trunk, loop, holder, t0, control).run()
        session.trajectory.append_rows(TABLE, rows)
        session.workspace.drop_twin(trunk, _name(t0, control))


def _done(session: Session, trunk: TrunkName, t0: int, control: bool) -> bool:
    return session.rows(TABLE, variant=trunk.variant, seed=trunk.seed, spawn_step=t0, control=int(control)) > 0


def _name(t0: int, control: bool) -> str:
    return f"twin-{t0:08d}{'-control' if control else ''}"


class _Twin:
    """One twin of a trunk: where it started, the rows it has so far."""

    def __init__(
        self, session: Session, trunk: TrunkName, loop: SupervisedLoop, holder: nn.Module, t0: int, control: bool
    ) -> None:
        assert session.plan.chaos is not None
        self.session, self.trunk, self.loop, self.holder = session, trunk, loop, holder
        self.t0, self.control, self.chaos = t0, control, session.plan.chaos
        self.name, self.rows, self.realised = _name(t0, control), [], Realised(0.0, 0.0, 0, 0)

    def run(self) -> list[Row]:
        """Train to the last horizon and return one row per horizon."""
        horizons = self.session.plan.horizons(self.t0)
        self._begin()
        while len(self.rows) < len(horizons):
            self._step()
            if self.loop.steps_done - self.t0 in horizons:
                self.rows.append(self._compare(self.loop.steps_done - self.t0))
            if self.session.save_is_due():
                self.session.workspace.save_twin(self.trunk, self.name, self._state())
        return self.rows

    def _begin(self) -> None:
        """Spawn from the trunk, or go on from the state an earlier session left."""
        state = self.session.workspace.twin(self.trunk, self.name)
        if state is None:
            self.loop.load_state_dict(self.session.workspace.state(self.trunk, self.t0))
            self.realised = self._perturb()
            return
        self.loop.load_state_dict(state["loop"])
        self.rows, self.realised = state["rows"], Realised(**state["realised"])
        self.session.progress.skip(self.loop.steps_done - self.t0)

    def _state(self) -> dict[str, Any]:
        return {"loop": self.loop.state_dict(), "rows": self.rows, "realised": vars(self.realised)}

    def _perturb(self) -> Realised:
        kind, norm = self.chaos.perturbation.kind, 0.0 if self.control else self.chaos.perturbation.norm
        names = {name for name, p in self.loop.model.named_parameters() if p.requires_grad}
        start = self.session.workspace.model(self.trunk, 0)
        return perturb(
            self.loop.model,
            Perturbation(kind, norm),
            generator_for(self.trunk.seed, self.t0, "perturbation"),
            initial={name: tensor for name, tensor in start.items() if name in names},
            gradient=lambda: self.loop.gradient(self.t0),
        )

    def _step(self) -> None:
        try:
            self.loop.step(self.loop.steps_done)
        except DivergedError as error:
            raise DivergedError(f"{self.trunk}, twin from step {self.t0}: {error}") from error
        self.session.progress.advance()

    def _compare(self, horizon: int) -> Row:
        session, step = self.session, self.t0 + horizon
        trunk_logits = session.trunk_logits(self.trunk, step, self.holder)
        self.holder.load_state_dict(session.workspace.model(self.trunk, step))
        twin_logits = predict(self.loop.model, session.recipe.test[0])
        if session.checkpoints == "all":
            session.workspace.save_twin_model(self.trunk, self.name, step, self.loop.model)
        distance = parameter_distance(self.holder, self.loop.model)
        return {
            "variant": self.trunk.variant,
            "seed": self.trunk.seed,
            "spawn_step": self.t0,
            "horizon": horizon,
            "control": int(self.control),
            "perturbation": "none" if self.control else self.chaos.perturbation.kind,
            **vars(self.realised),
            "dissimilarity": parameter_dissimilarity(self.holder, self.loop.model),
            "distance": distance.total,
            "relative_distance": distance.relative,
            "barrier": self._barrier() if self.chaos.barrier_at(horizon) else math.nan,
            "disagreement": disagreement(twin_logits, trunk_logits),
            "twin_test_loss": session.loss(twin_logits, session.recipe.test[1]),
            "trunk_test_loss": session.loss(trunk_logits, session.recipe.test[1]),
        }

    def _barrier(self) -> float:
        inputs, targets = self.session.recipe.test
        size, device = self.chaos.barrier_test_size, next(self.holder.parameters()).device
        data = (inputs[:size].to(device), targets[:size].to(device))
        return float(
            loss_barrier(
                self.loop.model, self.holder, data, self.session.recipe.loss_fn, alphas=self.chaos.barrier_alphas
            )
        )


def disagreement(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the share of test points whose argmax differs; nan where outputs are not [N, C >= 2]."""
    if first.ndim != 2 or first.shape[1] < 2:
        return math.nan
    return disagreement_rate(first, second)


def moved_controls(session: Session, chaos: Chaos) -> float:
    """Return the largest distance of a control twin from its trunk: exactly 0 unless an op is not deterministic."""
    table = session.trajectory.table(TABLE)
    distances = table["distance"][table["control"] == 1]
    return float(distances.max(initial=0.0)) if len(chaos.controls()) else 0.0
