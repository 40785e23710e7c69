"""What `run` is asked to do, and the files it writes: created, or opened again to resume."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from twophase_fast._types import InputError
from twophase_fast.experiments.config import differences
from twophase_fast.experiments.plan import Plan
from twophase_fast.experiments.recipe import Recipe
from twophase_fast.experiments.workspace import POLICIES, Workspace
from twophase_fast.storage import Trajectory


@dataclass(frozen=True)
class Job:
    """One experiment.

    Attributes:
        recipe: How trunks are trained.
        plan: What is measured when.
        config: Plain values stored with the run; a run resumes only under the same ones.
        out: The file.
        checkpoints: "none", "trunk" or "all": what stays beside the file.
        threads: CPU threads, or None for torch's present number.
        workers: Processes that train twins; more than 1 only where `config` is a full, resolved configuration.
        data_dir: Folder of the data set, for the workers.
    """

    recipe: Recipe
    plan: Plan
    config: Mapping[str, Any]
    out: Path
    checkpoints: str = "trunk"
    threads: int | None = None
    workers: int = 1
    data_dir: str | Path | None = None

    def __post_init__(self) -> None:
        if self.checkpoints not in POLICIES:
            raise InputError(f"checkpoints={self.checkpoints!r}; expected one of {', '.join(POLICIES)}")

    @property
    def parts(self) -> Path:
        """Folder of the run while it is written."""
        return self.out.with_name(self.out.name + ".parts")


def open_output(job: Job, workspace: Workspace, resume: bool, overwrite: bool) -> Trajectory:
    """Create the trajectory and claim the folder of checkpoints, or open both again.

    Raises:
        InputError: The run to resume has another configuration.
        StorageError: The output exists and neither `resume` nor `overwrite` is given, or checkpoints are missing.
    """
    exists = job.out.exists() or job.parts.exists()
    if resume and exists:
        return _reopened(job, workspace)
    if not overwrite and not exists:
        workspace.refuse_leftovers()
    attrs = _attributes(job)
    probe = job.recipe.probe if job.plan.cone else None
    trajectory = Trajectory.create(job.out, probe=probe, config=job.config, attrs=attrs, overwrite=overwrite)
    workspace.claim(attrs["id"], anew=True)
    return trajectory


def _reopened(job: Job, workspace: Workspace) -> Trajectory:
    stored = Trajectory.open(job.out)
    config = json.loads(json.dumps(job.config, default=str))
    changed = [name for name in differences(config, stored.config) if name != "workers"]
    if changed:
        raise InputError(
            f"cannot resume {job.out}: its configuration differs in {', '.join(changed)}; resume with the same one, or "
            "write to another file"
        )
    if stored.attrs.get("complete") and job.out.exists() and not job.parts.exists():
        return stored
    attrs = stored.attrs if "id" in stored.attrs else _attributes(job)  # cut off between the first two writes
    workspace.claim(attrs["id"], anew=not stored.children)
    trajectory = Trajectory.append_to(job.out)
    if attrs != stored.attrs:
        trajectory.set_attrs(attrs)
    return trajectory


def _attributes(job: Job) -> dict[str, Any]:
    return {
        "kind": "experiment",
        "id": uuid.uuid4().hex,
        "threads": job.threads or torch.get_num_threads(),
        "twins": "one by one",
        "complete": False,
    }
