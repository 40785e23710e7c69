"""Branches: freeze the full state of a run, and start from it again as often as one likes."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import torch

from twophase_fast.training.loop import StepLoop

State = dict[str, Any]


def random_state() -> State:
    """Return the state of Python's, NumPy's and torch's global generators (all CUDA devices in use)."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 (the global state is what is saved)
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: State) -> None:
    """Restore what `random_state` returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def snapshot(loop: StepLoop) -> State:
    """Copy everything later steps depend on: the loop's state and the global random generators.

    Args:
        loop: Any object with `model`, `step`, `state_dict` and `load_state_dict`.

    Returns:
        A state that further training does not change; `restore` takes it any number of times.
    """
    return {"loop": copy.deepcopy(loop.state_dict()), "random": random_state()}


def restore(loop: StepLoop, state: State) -> None:
    """Bring a loop, and the global random generators, back to a snapshot.

    The snapshot is copied on the way in (torch optimizers keep the very tensors they are given), so it stays as
    it was.
    """
    loop.load_state_dict(copy.deepcopy(state["loop"]))
    set_random_state(state["random"])
