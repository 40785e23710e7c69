"""A worker process: trains the twins it is told of on standard input, answers on standard output, in lines of JSON.

    in   {"config": ..., "data_dir": ..., "out": ..., "threads": ...}        once
         {"variant": ..., "seed": ..., "learning_rate": ..., "spawn_step": ..., "control": ...}    one per twin
    out  {"advanced": 25, "skipped": 0}                                      now and then
         {"rows": [...]}                                                     one per twin
         {"error": "...", "diverged": true}                                  last

It ends when its input does, and when the process that started it is gone.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import torch

from twophase_fast.experiments.build import make_plan, make_recipe
from twophase_fast.experiments.plan import TrunkName
from twophase_fast.experiments.session import Tools
from twophase_fast.experiments.twins import TwinName, TwinTrainer
from twophase_fast.experiments.workspace import Workspace
from twophase_fast.training import DivergedError

_REPORT_SECONDS = 0.25


class _Reports:
    """Stands in for the progress bar: counts, and reports a few times a second."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._parent, self._sent = out, os.getppid(), 0.0
        self._advanced = self._skipped = 0

    def describe(self, text: str) -> None:
        """Nothing to show."""

    def advance(self, steps: int = 1) -> None:
        """Count steps, and end at once if nobody listens any more."""
        if os.getppid() != self._parent:
            os._exit(1)
        self._advanced += steps
        if time.monotonic() - self._sent > _REPORT_SECONDS:
            self.send({})

    def skip(self, steps: int) -> None:
        """Count steps that an earlier session computed."""
        self._skipped += steps

    def send(self, message: dict[str, Any]) -> None:
        """Write a message together with the counts since the last one."""
        self._out.write(json.dumps(message | {"advanced": self._advanced, "skipped": self._skipped}) + "\n")
        self._out.flush()
        self._advanced, self._skipped, self._sent = 0, 0, time.monotonic()


def main() -> None:
    """Serve until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what anybody's model prints goes to standard error, not between the answers
    reports = _Reports(out)
    try:
        _serve(sys.stdin, reports)
    except DivergedError as error:
        reports.send({"error": str(error), "diverged": True})
    except Exception as error:
        traceback.print_exc()
        reports.send({"error": f"{type(error).__name__} in a worker process: {error}", "diverged": False})


def _serve(lines: TextIO, reports: _Reports) -> None:
    setup = json.loads(lines.readline())
    torch.set_num_threads(setup["threads"])
    config = setup["config"]
    plan = make_plan(config)
    recipe = make_recipe(config, setup["data_dir"]).placed(plan.trunks[0])
    tools = Tools(recipe, plan, Workspace(Path(setup["out"])), reports, config["checkpoints"])
    trainers: dict[TrunkName, TwinTrainer] = {}
    for line in lines:
        task = json.loads(line)
        trunk = TrunkName(task["variant"], task["seed"], task["learning_rate"])
        if trunk not in trainers:
            trainers = {trunk: TwinTrainer(tools, trunk)}  # one at a time: models may be large
        rows = trainers[trunk].train(TwinName(trunk, task["spawn_step"], task["control"]), keep=True)
        reports.send({"rows": rows})


if __name__ == "__main__":
    main()
