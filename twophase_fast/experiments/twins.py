"""Train the twins of a trunk and compare each with it at its horizons."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from twophase_fast.experiments.plan import TrunkName
from twophase_fast.experiments.recipe import predict
from twophase_fast.experiments.session import Session, Tools
from twophase_fast.measures import disagreement_rate, loss_barrier, parameter_dissimilarity, parameter_distance
from twophase_fast.training import DivergedError, Perturbation, Realised, SupervisedLoop, generator_for, perturb

Row = dict[str, int | float | str]
TABLE = "twins"


@dataclass(frozen=True)
class TwinName:
    """One twin: the trunk it leaves, where, and whether it is the control."""

    trunk: TrunkName
    spawn_step: int
    control: bool

    @property
    def file(self) -> str:
        """Name of its checkpoint."""
        return f"twin-{self.spawn_step:08d}{'-control' if self.control else ''}"

    def __str__(self) -> str:
        return f"{self.trunk}: {'control twin' if self.control else 'twin'} from step {self.spawn_step}"


def pending_twins(session: Session, trunk: TrunkName) -> list[TwinName]:
    """Return the twins of a trunk whose rows are not in the table yet; the others count as progress."""
    pending = []
    for t0, control in session.plan.twins:
        if session.rows(TABLE, variant=trunk.variant, seed=trunk.seed, spawn_step=t0, control=int(control)):
            session.progress.skip(max(session.plan.horizons(t0)))
        else:
            pending.append(TwinName(trunk, t0, control))
    return pending


def record_twin(session: Session, twin: TwinName, rows: list[Row]) -> None:
    """Add a finished twin's rows, all of them at once, and forget its checkpoint."""
    session.trajectory.append_rows(TABLE, rows)
    session.workspace.drop_twin(twin.trunk, twin.file)


class TwinTrainer:
    """Trains the twins of one trunk, one after the other, in the same two modules."""

    def __init__(self, tools: Tools, trunk: TrunkName) -> None:
        self._tools, self._loop = tools, tools.recipe.loop(trunk)
        self._holder = copy.deepcopy(self._loop.model)

    def train(self, twin: TwinName, keep: bool = False) -> list[Row]:
        """Train a twin to its last horizon, from where an earlier session left it.

        Args:
            twin: Which one.
            keep: Leave its rows in a checkpoint, for a caller who may be gone before they are recorded.

        Returns:
            One row per horizon.

        Raises:
            DivergedError: The twin's loss is not finite.
        """
        self._tools.progress.describe(str(twin))
        return _Twin(self._tools, twin, self._loop, self._holder).run(keep)


class _Twin:
    """One twin of a trunk: where it started, the rows it has so far."""

    def __init__(self, tools: Tools, twin: TwinName, loop: SupervisedLoop, holder: nn.Module) -> None:
        assert tools.plan.chaos is not None
        self.tools, self.loop, self.holder, self.chaos = tools, loop, holder, tools.plan.chaos
        self.twin, self.trunk, self.t0 = twin, twin.trunk, twin.spawn_step
        self.rows: list[Row] = []
        self.realised = Realised(0.0, 0.0, 0, 0)

    def run(self, keep: bool) -> list[Row]:
        """Train to the last horizon and return one row per horizon."""
        horizons = self.tools.plan.horizons(self.t0)
        self._begin()
        while len(self.rows) < len(horizons):
            self._step()
            if self.loop.steps_done - self.t0 in horizons:
                self.rows.append(self._compare(self.loop.steps_done - self.t0))
            if self.tools.save_is_due() or (keep and len(self.rows) == len(horizons)):
                self.tools.workspace.save_twin(self.trunk, self.twin.file, self._state())
        return self.rows

    def _begin(self) -> None:
        """Spawn from the trunk, or go on from the state an earlier session left."""
        state = self.tools.workspace.twin(self.trunk, self.twin.file)
        if state is None:
            self.loop.load_state_dict(self.tools.workspace.state(self.trunk, self.t0))
            self.realised = self._perturb()
            return
        self.loop.load_state_dict(state["loop"])
        self.rows, self.realised = state["rows"], Realised(**state["realised"])
        self.tools.progress.skip(self.loop.steps_done - self.t0)

    def _state(self) -> dict[str, Any]:
        return {"loop": self.loop.state_dict(), "rows": self.rows, "realised": vars(self.realised)}

    def _perturb(self) -> Realised:
        kind, norm = self.chaos.perturbation.kind, 0.0 if self.twin.control else self.chaos.perturbation.norm
        names = {name for name, p in self.loop.model.named_parameters() if p.requires_grad}
        start = self.tools.workspace.model(self.trunk, 0)
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
            raise DivergedError(f"{self.twin}: {error}; what was recorded until then is kept") from error
        self.tools.progress.advance()

    def _compare(self, horizon: int) -> Row:
        tools, step = self.tools, self.t0 + horizon
        trunk_logits = tools.trunk_logits(self.trunk, step, self.holder)
        self.holder.load_state_dict(tools.workspace.model(self.trunk, step))
        twin_logits = predict(self.loop.model, tools.recipe.test[0])
        if tools.checkpoints == "all":
            tools.workspace.save_twin_model(self.trunk, self.twin.file, step, self.loop.model)
        distance = parameter_distance(self.holder, self.loop.model)
        return {
            "variant": self.trunk.variant,
            "seed": self.trunk.seed,
            "spawn_step": self.t0,
            "horizon": horizon,
            "control": int(self.twin.control),
            "perturbation": "none" if self.twin.control else self.chaos.perturbation.kind,
            **vars(self.realised),
            "dissimilarity": parameter_dissimilarity(self.holder, self.loop.model),
            "distance": distance.total,
            "relative_distance": distance.relative,
            "barrier": self._barrier() if self.chaos.barrier_at(horizon) else math.nan,
            "disagreement": disagreement(twin_logits, trunk_logits),
            "twin_test_loss": tools.loss(twin_logits, tools.recipe.test[1]),
            "trunk_test_loss": tools.loss(trunk_logits, tools.recipe.test[1]),
        }

    def _barrier(self) -> float:
        recipe, chaos = self.tools.recipe, self.chaos
        inputs, targets = recipe.test
        estimate = chaos.barrier_batch_norm_size
        return float(
            loss_barrier(
                self.loop.model,
                self.holder,
                (inputs[: chaos.barrier_test_size], targets[: chaos.barrier_test_size]),
                recipe.loss_fn,
                alphas=chaos.barrier_alphas,
                batch_norm_data=recipe.train[0][:estimate] if estimate else None,
            )
        )


def disagreement(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the share of test points whose argmax differs; nan where outputs are not [N, C >= 2]."""
    if first.ndim != 2 or first.shape[1] < 2:
        return math.nan
    return disagreement_rate(first, second)


def moved_controls(session: Session) -> float:
    """Return the largest distance of a control twin from its trunk: exactly 0 unless an op is not deterministic."""
    table = session.trajectory.table(TABLE)
    return float(table["distance"][table["control"] == 1].max(initial=0.0))
