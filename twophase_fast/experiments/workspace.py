"""Checkpoints of a running experiment: what twins spawn from, what they are compared with, where to resume.

<out>.checkpoints/
  id                                  the experiment they belong to
  main-seed0/
    state-00000100.ckpt               full state at a spawn step
    model-00000200.ckpt               weights and buffers at a step that something is compared with
    latest.ckpt                       full state to resume the trunk from
    twin-00000100.ckpt                full state and rows so far of a twin that is not finished
    twin-00000100-model-00000300.ckpt weights of a twin at a horizon (checkpoints="all")
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from twophase_fast._types import StorageError
from twophase_fast.experiments.plan import TrunkName
from twophase_fast.training import load_checkpoint, read_note, save_checkpoint

POLICIES = ("none", "trunk", "all")


class Workspace:
    """The folder of checkpoints beside a run."""

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(out.name + ".checkpoints")

    def refuse_leftovers(self) -> None:
        """Make sure that no checkpoints lie where a new experiment would put its own.

        Raises:
            StorageError: There are some.
        """
        if self.folder.exists() and any(self.folder.iterdir()):
            raise StorageError(
                f"{self.folder} holds checkpoints of another experiment; move it away, choose another output, or pass "
                "overwrite=True (--overwrite)"
            )

    def claim(self, identity: str, anew: bool) -> None:
        """Mark the folder as belonging to an experiment, emptied where `anew`; else it must be marked already.

        Raises:
            StorageError: It belongs to another experiment, or is gone.
        """
        mark = self.folder / "id"
        if anew:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            mark.write_text(identity)
        elif not mark.is_file() or mark.read_text() != identity:
            raise StorageError(
                f"{self.folder} does not hold the checkpoints of this run (they were moved or replaced); bring them "
                "back, or start again with overwrite=True (--overwrite)"
            )

    def save_state(self, trunk: TrunkName, state: dict[str, Any], spawn: bool) -> None:
        """Keep a trunk's full state, for good at a spawn step, else as the latest."""
        step = state["steps_done"]
        name = f"state-{step:08d}" if spawn else "latest"
        save_checkpoint(self._file(trunk, name), state, note={"step": step})

    def state(self, trunk: TrunkName, step: int) -> dict[str, Any]:
        """Return a trunk's full state at a spawn step."""
        return load_checkpoint(self._file(trunk, f"state-{step:08d}"))

    def newest_state(self, trunk: TrunkName) -> dict[str, Any] | None:
        """Return the most advanced full state of a trunk, or None."""
        folder = self._file(trunk, "").parent
        files = [*folder.glob("state-*.ckpt"), *folder.glob("latest.ckpt")]
        newest = max(files, key=lambda file: read_note(file)["step"], default=None)
        return None if newest is None else load_checkpoint(newest)

    def save_model(self, trunk: TrunkName, step: int, model: torch.nn.Module) -> None:
        """Keep a trunk's weights and buffers at a step."""
        file = self._file(trunk, f"model-{step:08d}")
        if not file.exists():
            save_checkpoint(file, model.state_dict(), note={"step": step, "trunk": str(trunk)})

    def model(self, trunk: TrunkName, step: int) -> dict[str, torch.Tensor]:
        """Return a trunk's weights and buffers at a step."""
        return load_checkpoint(self._file(trunk, f"model-{step:08d}"))

    def save_twin(self, trunk: TrunkName, twin: str, state: dict[str, Any]) -> None:
        """Keep the state of an unfinished twin."""
        save_checkpoint(self._file(trunk, twin), state)

    def twin(self, trunk: TrunkName, twin: str) -> dict[str, Any] | None:
        """Return the state of an unfinished twin, or None."""
        file = self._file(trunk, twin)
        return load_checkpoint(file) if file.exists() else None

    def drop_twin(self, trunk: TrunkName, twin: str) -> None:
        """Forget the state of a twin that is finished."""
        self._file(trunk, twin).unlink(missing_ok=True)

    def save_twin_model(self, trunk: TrunkName, twin: str, step: int, model: torch.nn.Module) -> None:
        """Keep a twin's weights and buffers at a horizon."""
        save_checkpoint(self._file(trunk, f"{twin}-model-{step:08d}"), model.state_dict())

    def finish(self, policy: str) -> None:
        """Remove what a finished experiment no longer needs; under "none" everything."""
        if policy == "none":
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for pattern in ("state-*.ckpt", "latest.ckpt"):
            for file in self.folder.glob(f"*/{pattern}"):
                file.unlink()

    def _file(self, trunk: TrunkName, name: str) -> Path:
        folder = self.folder / str(trunk)
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.ckpt"
