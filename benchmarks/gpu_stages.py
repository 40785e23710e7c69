"""The stages of `make gpu-check` as processes with time limits, whose findings are kept whatever becomes of them."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ITEM_SECONDS = 75.0
"""An item that takes longer is ended, with its process."""
LAST_CHARACTERS = 1500  # of standard error, in what is said of a process that died

Found = Callable[[str, dict[str, Any]], None]
"""Takes the name of an item and what is known of it."""


@dataclass
class Stage:
    """One stage, run by `gpu_worker` in one process, or in several side by side.

    Attributes:
        name: Name of the stage.
        options: Further arguments of the worker.
        environment: Variables set on top of this process's.
        parts: Processes side by side.
        warm: Whether to compile only; what is found is then not kept.
    """

    name: str
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    parts: int = 1
    warm: bool = False

    def run(self, deadline: float, found: Found) -> bool:
        """Run the stage until `time.monotonic()` is `deadline`; returns whether it came to its end."""
        with ThreadPoolExecutor(self.parts) as pool:
            ended = pool.map(lambda part: self._run_part(part, deadline, found), range(self.parts))
            return all(list(ended))

    def _run_part(self, part: int, deadline: float, found: Found) -> bool:
        """Run one part, with a new process behind every item that ends one."""
        first = 0
        while time.monotonic() < deadline:
            worker = _Worker(self._command(part, first), self.environment)
            try:
                last = worker.follow(deadline, found)
            finally:
                worker.close()
            if last is None:
                return True
            first = last + 1
        return False

    def _command(self, part: int, first: int) -> list[str]:
        warm = ["--warm"] if self.warm else []
        where = ["--part", f"{part}/{self.parts}", "--first", str(first)]
        return [sys.executable, "-m", "benchmarks.gpu_worker", self.name, *self.options, *where, *warm]


class _Worker:
    """A running worker, whose lines are read with a time limit."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 closed with the worker
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._name, self._index = "the start of the process", -1
        self._known: dict[str, Any] = {}
        self._at_work = True

    def follow(self, deadline: float, found: Found) -> int | None:
        """Hand on what the worker says; returns the index of the item it ended at too early, None if at none."""
        limit = min(deadline, time.monotonic() + ITEM_SECONDS)
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, limit - time.monotonic()))
            except queue.Empty:
                return self._gave_up("took too long", found)
            if line is None:
                return self._ended(found)
            if self._take(line, found):
                limit = min(deadline, time.monotonic() + ITEM_SECONDS)

    def close(self) -> None:
        """End the process, if it has not."""
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _take(self, line: str, found: Found) -> bool:
        """Take one line in; returns whether an item begins."""
        try:
            said = json.loads(line)
        except json.JSONDecodeError:  # somebody else's print
            return False
        if not isinstance(said, dict):
            return False
        if "begin" in said:
            self._name, self._index, self._known, self._at_work = said["begin"], said["index"], {}, True
            return True
        self._known |= said.get("note", {}) | said.get("end", {})
        self._at_work = "end" not in said
        found(self._name, self._known | ({"status": "unfinished"} if self._at_work else {}))
        return False

    def _ended(self, found: Found) -> int | None:
        status = self._process.wait()
        if status == 0:
            return None
        if not self._at_work:  # the item's own words say what broke the context
            return self._index
        return self._gave_up(f"the process ended with status {status}", found)

    def _gave_up(self, why: str, found: Found) -> int:
        self._process.kill()
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace")[-LAST_CHARACTERS:]
        found(self._name, self._known | {"status": "failed", "error_text": why, "standard_error": last})
        if self._index < 0:
            raise StageError(f"{why}: {last}")
        return self._index


class StageError(RuntimeError):
    """A stage cannot even start."""
