"""Run an experiment: every trunk once, its kernels and twins, resumable at any moment."""

from __future__ import annotations

import contextlib
import json
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from twophase_fast._types import InputError
from twophase_fast.experiments.ceilings import measure_ceilings
from twophase_fast.experiments.cone import measure_cone
from twophase_fast.experiments.config import differences
from twophase_fast.experiments.plan import Plan
from twophase_fast.experiments.progress import Progress
from twophase_fast.experiments.recipe import Recipe, make_model
from twophase_fast.experiments.session import Session, predict
from twophase_fast.experiments.trunk import train_trunk
from twophase_fast.experiments.twins import moved_controls, train_twins
from twophase_fast.experiments.workspace import POLICIES, Workspace
from twophase_fast.storage import Trajectory


def run(
    recipe: Recipe,
    plan: Plan,
    config: Mapping[str, Any],
    out: Path,
    resume: bool,
    overwrite: bool,
    show: bool | None,
    checkpoints: str,
) -> Trajectory:
    """Carry out a plan; see `run_experiment` for the arguments.

    Raises:
        InputError: As there.
        KeyboardInterrupt: As there.
    """
    if checkpoints not in POLICIES:
        raise InputError(f"checkpoints={checkpoints!r}; expected one of {', '.join(POLICIES)}")
    recipe = _on_the_models_device(recipe, plan)
    workspace = Workspace(out)
    trajectory = _opened(recipe, plan, config, out, workspace, resume, overwrite)
    try:
        with trajectory, Progress(plan.total_steps, show) as bar, _threads(trajectory.attrs["threads"]):
            if not trajectory.attrs.get("complete"):
                _measure(Session(recipe, plan, trajectory, workspace, bar, checkpoints))
                trajectory.set_attrs({"complete": True})
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; everything finished so far is in {out}.parts and {workspace.folder}; go on with resume=True "
            "(--resume)"
        ) from None
    workspace.finish(checkpoints)
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
    """Move test data and probe to the model's device, and make sure that the model takes the data.

    Raises:
        InputError: It does not, or has nothing to train.
    """
    model = make_model(recipe.model_factory, plan.seeds[0])
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no parameter that requires grad; there is nothing to train")
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


def _opened(
    recipe: Recipe,
    plan: Plan,
    config: Mapping[str, Any],
    out: Path,
    workspace: Workspace,
    resume: bool,
    overwrite: bool,
) -> Trajectory:
    """Create the trajectory and claim the folder of checkpoints, or open both again."""
    if resume and (out.exists() or _parts(out).exists()):
        return _reopened(config, out, workspace)
    if not overwrite and not out.exists() and not _parts(out).exists():
        workspace.refuse_leftovers()
    attrs = _attributes()
    probe = recipe.probe if plan.cone else None
    trajectory = Trajectory.create(out, probe=probe, config=config, attrs=attrs, overwrite=overwrite)
    workspace.claim(attrs["id"], anew=True)
    return trajectory


def _reopened(config: Mapping[str, Any], out: Path, workspace: Workspace) -> Trajectory:
    stored = Trajectory.open(out)
    changed = differences(json.loads(json.dumps(config, default=str)), stored.config)
    if changed:
        raise InputError(
            f"cannot resume {out}: its configuration differs in {', '.join(changed)}; resume with the same one, or "
            "write to another file"
        )
    if stored.attrs.get("complete") and out.exists() and not _parts(out).exists():
        return stored
    trajectory = Trajectory.append_to(out)
    if "id" not in trajectory.attrs:  # cut off between the first two writes
        trajectory.set_attrs(_attributes())
    workspace.claim(trajectory.attrs["id"], anew=not trajectory.children)
    return trajectory


def _attributes() -> dict[str, Any]:
    threads = torch.get_num_threads()
    return {
        "kind": "experiment",
        "id": uuid.uuid4().hex,
        "threads": threads,
        "twins": "one by one",
        "complete": False,
    }


def _parts(out: Path) -> Path:
    return out.with_name(out.name + ".parts")
