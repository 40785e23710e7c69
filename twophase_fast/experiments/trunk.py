"""Train one trunk: metrics, kernels and weights on the way, states for twins to spawn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from twophase_fast.experiments.plan import TrunkName
from twophase_fast.experiments.recipe import predict
from twophase_fast.experiments.session import Session, parameter_norm
from twophase_fast.ntk import entk
from twophase_fast.storage import Trajectory
from twophase_fast.training import DivergedError, SupervisedLoop
from twophase_fast.training._modes import eval_mode

STORED_PARAMETERS = 1_000_000


def train_trunk(session: Session, trunk: TrunkName, between: Callable[[], None]) -> None:
    """Train a trunk to the end, from where an earlier session left it.

    Whatever was recorded at a step is durable before a state at or after that step can be resumed from; steps that are
    computed again give the same values, and what they recorded is not recorded twice.

    Args:
        session: Where results go.
        trunk: Which one.
        between: Called after every step.

    Raises:
        DivergedError: The loss is not finite; what was recorded is kept.
    """
    loop = session.recipe.loop(trunk)
    child = _child(session.trajectory, trunk, loop)
    recorded = _recorded_steps(child)
    state = session.workspace.newest_state(trunk)
    if state is not None:
        loop.load_state_dict(state)
        session.progress.skip(loop.steps_done)
    else:
        _arrive(session, trunk, loop, child, recorded)
    session.progress.describe(f"{trunk}: training")
    while loop.steps_done < session.plan.steps:
        _step(loop, trunk)
        session.progress.advance()
        _arrive(session, trunk, loop, child, recorded)
        between()


def _step(loop: SupervisedLoop, trunk: TrunkName) -> None:
    try:
        loop.step(loop.steps_done)
    except DivergedError as error:
        raise DivergedError(f"{trunk}: {error}; what was recorded until then is kept") from error


def _child(trajectory: Trajectory, trunk: TrunkName, loop: SupervisedLoop) -> Trajectory:
    if str(trunk) in trajectory.children:
        return trajectory.child(str(trunk))
    attrs = {
        "variant": trunk.variant,
        "seed": trunk.seed,
        "learning_rate": loop.learning_rate,
        "steps_per_epoch": loop.steps_per_epoch,
        "parameters": sum(p.numel() for p in loop.model.parameters()),
    }
    return trajectory.child(str(trunk), attrs=attrs)


def _recorded_steps(child: Trajectory) -> set[int]:
    return set(child.metric("test_loss")[0].tolist()) if "test_loss" in child.metrics else set()


def _arrive(session: Session, trunk: TrunkName, loop: SupervisedLoop, child: Trajectory, recorded: set[int]) -> None:
    """Do what the plan has for the step the loop has just reached."""
    plan, step = session.plan, loop.steps_done
    if step in plan.evaluation_steps and step not in recorded:
        child.append(step, **_record(session, loop))
    if step in plan.reference_steps:
        session.workspace.save_model(trunk, step, loop.model)
    spawn = step in plan.spawn_steps
    if spawn or step == plan.steps or session.save_is_due():
        session.trajectory.flush()
        session.workspace.save_state(trunk, loop.state_dict(), spawn=spawn)


def _record(session: Session, loop: SupervisedLoop) -> dict[str, Any]:
    """Return the arguments of `Trajectory.append` for this step; one call keeps all of it or none."""
    record: dict[str, Any] = {"metrics": _metrics(session, loop)}
    cone = session.plan.cone
    if cone is not None and loop.steps_done in cone.probe_steps:
        with eval_mode(loop.model):
            record["kernel"] = entk(loop.model, session.recipe.probe, output=cone.output)
        if sum(p.numel() for p in loop.model.parameters()) <= STORED_PARAMETERS:
            record["parameters"] = loop.model
    return record


def _metrics(session: Session, loop: SupervisedLoop) -> dict[str, float]:
    (inputs, targets), size = session.recipe.train, len(session.recipe.test[0])
    seen, unseen = predict(loop.model, inputs[:size]), predict(loop.model, session.recipe.test[0])
    metrics = {
        "train_loss": session.loss(seen, targets[:size]),
        "test_loss": session.loss(unseen, session.recipe.test[1]),
        "learning_rate": loop.learning_rate,
        "parameter_norm": parameter_norm(loop),
    }
    labels = session.recipe.test[1].to(unseen.device)
    if unseen.ndim == 2 and not labels.is_floating_point() and labels.shape == unseen.shape[:1]:
        metrics["test_accuracy"] = float((unseen.argmax(1) == labels).to(torch.float64).mean())
    return metrics
