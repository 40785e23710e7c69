"""Run an experiment: every trunk once, its kernels and twins, resumable at any moment."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch

from twophase_fast.experiments.ceilings import measure_ceilings
from twophase_fast.experiments.cone import measure_cone
from twophase_fast.experiments.job import Job, open_output
from twophase_fast.experiments.pool import TwinPool
from twophase_fast.experiments.progress import Progress
from twophase_fast.experiments.session import Session
from twophase_fast.experiments.trunk import train_trunk
from twophase_fast.experiments.twins import TwinTrainer, moved_controls, pending_twins, record_twin
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
    recipe = job.recipe.placed(job.plan.trunks[0])
    trajectory = open_output(job, workspace, resume, overwrite)
    try:
        with (
            trajectory,
            Progress(job.plan.total_steps, progress) as bar,
            _threads(trajectory.attrs["threads"]),
            _pool(job, trajectory.attrs["threads"], bar) as pool,
        ):
            if not trajectory.attrs.get("complete"):
                session = Session(recipe, job.plan, workspace, bar, job.checkpoints, trajectory=trajectory)
                _measure(session, pool)
                trajectory.set_attrs({"complete": True})
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; everything finished so far is in {job.parts} and {workspace.folder}; go on with resume=True "
            "(--resume)"
        ) from None
    workspace.finish(job.checkpoints)
    return trajectory


def _pool(job: Job, threads: int, bar: Progress) -> contextlib.AbstractContextManager[TwinPool | None]:
    """Worker processes, where the job can be told to them and asks for more than this one."""
    if job.workers < 2 or job.plan.chaos is None:
        return contextlib.nullcontext()
    data_dir = None if job.data_dir is None else str(job.data_dir)
    setup = {"config": job.config, "data_dir": data_dir, "out": str(job.out), "threads": threads}
    return TwinPool(job.workers, setup, bar)


def _measure(session: Session, pool: TwinPool | None) -> None:
    plan = session.plan
    for trunk in plan.trunks:
        train_trunk(session, trunk, between=lambda: _record(session, pool, 0.0))
        if plan.cone is not None:
            measure_cone(session, trunk)
        pending = pending_twins(session, trunk)
        if pool is not None:
            pool.submit(pending)
        elif pending:
            trainer = TwinTrainer(session, trunk)
            for twin in pending:
                record_twin(session, twin, trainer.train(twin))
    measure_ceilings(session)
    while pool is not None and pool.unfinished:
        session.progress.describe("twins")
        _record(session, pool, 1.0)
    _warn_of_moved_controls(session)


def _record(session: Session, pool: TwinPool | None, timeout: float) -> None:
    """Record the twins that workers have finished."""
    for twin, rows in pool.collect(timeout) if pool is not None else ():
        record_twin(session, twin, rows)


def _warn_of_moved_controls(session: Session) -> None:
    floor = moved_controls(session) if session.plan.chaos is not None else 0.0
    if floor:
        warnings.warn(
            f"control twins moved up to {floor:.3g} away from their trunk: training is not deterministic on this "
            "device, and smaller distances between twins mean nothing",
            RuntimeWarning,
            stacklevel=5,
        )


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use the number of threads the run was started with: sums of floats depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
