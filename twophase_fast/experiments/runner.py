"""Run an experiment: every trunk once, its kernels and twins, resumable at any moment."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from twophase_fast._types import InputError
from twophase_fast.experiments.ceilings import measure_ceilings
from twophase_fast.experiments.cone import measure_cone
from twophase_fast.experiments.job import Job, open_output
from twophase_fast.experiments.plan import Plan
from twophase_fast.experiments.progress import Progress
from twophase_fast.experiments.recipe import Recipe
from twophase_fast.experiments.session import Session, predict
from twophase_fast.experiments.trunk import train_trunk
from twophase_fast.experiments.twins import moved_controls, train_twins
from twophase_fast.experiments.workspace import Workspace
from twophase_fast.storage import Trajectory


def run(job: Job, *, resume: bool, overwrite: bool, progress: bool | None) -> Trajectory:
    """Carry out a job; see `run_experiment`.

    Raises:
        InputError: As there.
        StorageError: As there.
        DivergedError: As there.
        KeyboardInterrupt: As there.
    """
    workspace = Workspace(job.out)
    recipe = _on_the_models_device(job.recipe, job.plan)
    trajectory = open_output(job, workspace, resume, overwrite)
    try:
        with (
            trajectory,
            Progress(job.plan.total_steps, progress) as bar,
            _threads(trajectory.attrs["threads"]),
        ):
            if not trajectory.attrs.get("complete"):
                _measure(Session(recipe, job.plan, trajectory, workspace, bar, job.checkpoints))
                trajectory.set_attrs({"complete": True})
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; everything finished so far is in {job.parts} and {workspace.folder}; go on with resume=True "
            "(--resume)"
        ) from None
    workspace.finish(job.checkpoints)
    return trajectory


def _measure(session: Session) -> None:
    plan = session.plan
    for trunk in plan.trunks:
        train_trunk(session, trunk)
        if plan.cone is not None:
            measure_cone(session, trunk)
        train_twins(session, trunk)
    measure_ceilings(session)
    if plan.chaos is not None:
        floor = moved_controls(session, plan.chaos)
        if floor:
            warnings.warn(
                f"control twins moved up to {floor:.3g} away from their trunk: training is not deterministic on this "
                "device, and smaller distances between twins mean nothing",
                RuntimeWarning,
                stacklevel=4,
            )


def _on_the_models_device(recipe: Recipe, plan: Plan) -> Recipe:
    """Move data and probe set to the model's device, and make sure that a trunk can be made and takes the data."""
    model = recipe.loop(plan.trunks[0]).model
    device = next(model.parameters()).device
    _check_fits(model, recipe)
    moved = {
        name: tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), getattr(recipe, name))
        for name in ("train", "test", "probe")
    }
    return replace(recipe, **moved)


def _check_fits(model: nn.Module, recipe: Recipe) -> None:
    inputs, targets = recipe.test
    try:
        outputs = predict(model, inputs[:2])
        recipe.loss_fn(outputs, targets[:2].to(outputs.device))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"the model and the loss cannot take the data (inputs {tuple(inputs.shape[1:])} {inputs.dtype}, targets "
            f"{targets.dtype}): {error}"
        ) from error


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use the number of threads the run was started with: sums of floats depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
