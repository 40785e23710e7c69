"""What every phase of a running experiment shares."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from twophase_fast.experiments.plan import Plan, TrunkName
from twophase_fast.experiments.progress import Counter
from twophase_fast.experiments.recipe import Recipe, predict
from twophase_fast.experiments.workspace import Workspace
from twophase_fast.storage import Trajectory
from twophase_fast.training import SupervisedLoop

CHECKPOINT_SECONDS = 60.0


@dataclass
class Tools:
    """What training and comparing needs: recipe, plan, checkpoints, progress, and trunk outputs kept in memory.

    Attributes:
        recipe: How trunks are trained.
        plan: What is measured when.
        workspace: Checkpoints.
        progress: Counts steps.
        checkpoints: "none", "trunk" or "all": what is kept after the end.
    """

    recipe: Recipe
    plan: Plan
    workspace: Workspace
    progress: Counter
    checkpoints: str
    _logits: dict[tuple[TrunkName, int], torch.Tensor] = field(default_factory=dict)
    _saved: float = field(default_factory=time.monotonic)

    def save_is_due(self) -> bool:
        """Whether the last resumable state is older than a minute; asking starts the next minute."""
        if time.monotonic() - self._saved < CHECKPOINT_SECONDS:
            return False
        self._saved = time.monotonic()
        return True

    def trunk_logits(self, trunk: TrunkName, step: int, holder: nn.Module) -> torch.Tensor:
        """Return a trunk's outputs on the test set at a step, computed once; `holder` is overwritten by its weights."""
        key = (trunk, step)
        if key not in self._logits:
            holder.load_state_dict(self.workspace.model(trunk, step))
            self._logits[key] = predict(holder, self.recipe.test[0])
        return self._logits[key]

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> float:
        """Return the loss of outputs as a float."""
        return float(self.recipe.loss_fn(logits, targets.to(logits.device)))


@dataclass(kw_only=True)
class Session(Tools):
    """The tools, and where results go.

    Attributes:
        trajectory: Open for writing.
    """

    trajectory: Trajectory

    def rows(self, table: str, **wanted: object) -> int:
        """Return how many rows of a table have the wanted values."""
        if table not in self.trajectory.tables:
            return 0
        columns = self.trajectory.table(table)
        keep = np.ones(len(next(iter(columns.values()))), dtype=bool)
        for name, value in wanted.items():
            keep &= columns[name] == value
        return int(keep.sum())


def parameter_norm(loop: SupervisedLoop) -> float:
    """Return ‖θ‖₂ over the parameters, float64."""
    return float(torch.stack([p.detach().double().square().sum() for p in loop.model.parameters()]).sum().sqrt())
