"""The two ways to start an experiment: from Python objects, or from a configuration of plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from twophase_fast._types import InputError, Inputs
from twophase_fast.experiments.build import make_plan, make_recipe
from twophase_fast.experiments.config import resolve_config
from twophase_fast.experiments.job import Job
from twophase_fast.experiments.plan import Chaos, Cone, Controls, Plan
from twophase_fast.experiments.recipe import ModelFactory, Pair, Recipe, as_pair
from twophase_fast.experiments.runner import run
from twophase_fast.storage import Trajectory
from twophase_fast.training import FlipCrop
from twophase_fast.training.loop import LossFunction, OptimizerFactory, SchedulerFactory


def run_experiment(
    model_factory: ModelFactory,
    train: Pair | torch.utils.data.TensorDataset,
    test: Pair | torch.utils.data.TensorDataset,
    *,
    optimizer: OptimizerFactory,
    scheduler: SchedulerFactory | None = None,
    loss_fn: LossFunction,
    steps: int,
    batch_size: int,
    seeds: Sequence[int],
    probe: Inputs | None = None,
    chaos: Chaos | None = None,
    cone: Cone | None = None,
    switch: None = None,
    controls: Controls | None = None,
    augmentation: FlipCrop | None = None,
    evaluate_every: int | None = None,
    checkpoints: str = "trunk",
    threads: int | None = None,
    config: Mapping[str, Any] | None = None,
    out: str | Path = "run.h5",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Trajectory:
    """Train one trunk per seed and measure the chaos and the cone effect on it.

    Everything random is a function of (seed, step), so twins share all noise with their trunk, and a run that was cut
    off ends, after `resume=True`, in the same numbers. Every trunk has control twins (ε = 0), which must stay
    bit-identical to it.

    Args:
        model_factory: `factory(seed=k)`, or `factory()`, which is then called under generators seeded by k.
        train: Inputs and targets, tensors with a leading sample axis, or a TensorDataset of the two.
        test: The same; loss, accuracy, disagreement and barrier are measured on it.
        optimizer: Function from the list of parameters to a torch optimizer.
        scheduler: Function from the optimizer to a scheduler stepped after every update.
        loss_fn: (outputs, targets) -> mean loss of a batch.
        steps: Updates of every trunk.
        batch_size: Samples per update.
        seeds: One trunk each.
        probe: Probe set of the kernels (needed with `cone`).
        chaos: What to measure on twins, or None.
        cone: What to measure on kernels, or None.
        switch: Not available yet; leave it None.
        controls: Low-learning-rate control trunks.
        augmentation: Of training batches.
        evaluate_every: Steps between evaluations; None for twenty over the run.
        checkpoints: What stays in `<out>.checkpoints` after the end: "none", "trunk" (weights of the trunks at every
            step that was compared) or "all" (those of the twins too).
        threads: CPU threads torch uses during the run (a resumed run keeps those it was started with); None for
            torch's present number. For tiny models one is fastest, above all on a busy machine.
        config: Plain values stored with the run; None describes the arguments.
        out: The file; while it is written it is a folder `<out>.parts`.
        resume: Go on with a run that was cut off (or start it, if there is none).
        overwrite: Replace an existing file; the old one stays until the new one is complete.
        progress: Show a progress bar on standard error; None shows it on a terminal only.

    Returns:
        The finished trajectory, open for reading. Its tables are described in the experiments folder's README.

    Raises:
        InputError: Arguments that do not fit together, or another configuration than the one being resumed.
        StorageError: The output exists (pass `overwrite=True`), or cannot be written.
        DivergedError: A loss became NaN or infinite; what was recorded is kept.
        KeyboardInterrupt: On Ctrl-C, with a message saying how to go on.
    """
    if switch is not None:
        raise InputError("switch (the linearised switch) is not available yet; leave it None")
    plan = Plan(steps, seeds, evaluate_every or max(1, steps // 20), chaos, cone, controls or Controls())
    if cone and probe is None:
        raise InputError("cone= needs probe=, the inputs the kernels are computed on")
    train, test = as_pair("train", train), as_pair("test", test)
    recipe = Recipe(
        model_factory,
        train,
        test,
        test[0][:1] if probe is None else probe,
        optimizer,
        scheduler,
        loss_fn,
        batch_size,
        augmentation,
    )
    if config is None:
        config = _description(model_factory, plan, batch_size)
    job = Job(recipe, plan, config, Path(out), checkpoints, threads)
    return run(job, resume=resume, overwrite=overwrite, progress=progress)


def run_config(
    config: Mapping[str, Any],
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    data_dir: str | Path | None = None,
    progress: bool | None = None,
) -> Trajectory:
    """Run the experiment that a configuration describes: `run_experiment` with everything made from plain values.

    Args:
        config: As read from TOML (`read_config`, `load_preset`), checked here.
        out: As in `run_experiment`.
        resume: As in `run_experiment`.
        overwrite: As in `run_experiment`.
        data_dir: Folder of the data set, where it is not embedded.
        progress: As in `run_experiment`.

    Returns:
        The finished trajectory, open for reading; `config` in it is the full resolved configuration.

    Raises:
        ConfigError: An unknown key (the nearest known one is named), or values that do not fit together.
        StorageError: Data missing or corrupt, or the output exists or cannot be written.
        DivergedError: A loss became NaN or infinite; what was recorded is kept.
        WorkerError: A worker process ended or failed; what was recorded is kept.
    """
    resolved = resolve_config(config)
    plan = make_plan(resolved)
    recipe = make_recipe(resolved, data_dir)
    job = Job(
        recipe,
        plan,
        resolved,
        Path(out),
        resolved["checkpoints"],
        resolved["threads"],
        resolved["workers"],
        data_dir,
    )
    return run(job, resume=resume, overwrite=overwrite, progress=progress)


def _description(factory: ModelFactory, plan: Plan, batch_size: int) -> dict[str, Any]:
    name = f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', type(factory).__name__)}"
    tables = {k: None if v is None else _plain(v) for k, v in (("chaos", plan.chaos), ("cone", plan.cone))}
    return {
        "model": name,
        "steps": plan.steps,
        "batch_size": batch_size,
        "seeds": list(plan.seeds),
        "evaluate_every": plan.evaluate_every,
        **tables,
        "controls": _plain(plan.controls),
    }


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return list(value) if isinstance(value, list | tuple | range) else value
