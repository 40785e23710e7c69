"""Twins in worker processes: each is a Python of its own, told by lines of JSON what to train (see `worker`)."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from twophase_fast._types import TwoPhaseError
from twophase_fast.experiments.progress import Progress
from twophase_fast.experiments.twins import Row, TwinName
from twophase_fast.training import DivergedError


class WorkerError(TwoPhaseError, RuntimeError):
    """A worker process ended, or failed in a way it could not foresee."""


class _Worker:
    """One process, the twin it is training, and what of its answers has been read."""

    def __init__(self, setup: str) -> None:
        # A session of its own: Ctrl-C reaches the starting process alone, which then stops the workers.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "twophase_fast.experiments.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._orders, self.answers = self.process.stdin, self.process.stdout
        self.twin: TwinName | None = None
        self._unread = b""
        self._write(setup)

    def begin(self, twin: TwinName) -> None:
        """Tell it which twin to train."""
        self.twin = twin
        place = {"spawn_step": twin.spawn_step, "control": twin.control}
        self._write(json.dumps(vars(twin.trunk) | place))

    def messages(self) -> list[dict[str, Any]]:
        """Read what it has written; blocks only where it has written nothing.

        Raises:
            WorkerError: It has ended.
        """
        piece = os.read(self.answers.fileno(), 1 << 16)
        if not piece:
            raise self._lost()
        *lines, self._unread = (self._unread + piece).split(b"\n")
        return [json.loads(line) for line in lines]

    def stop(self) -> None:
        """Kill it; all it writes to disk is atomic."""
        self.process.kill()
        self.process.wait()
        self._orders.close()
        self.answers.close()

    def _write(self, line: str) -> None:
        try:
            self._orders.write(line.encode() + b"\n")
        except BrokenPipeError as error:
            raise self._lost() from error

    def _lost(self) -> WorkerError:
        code = self.process.wait()
        return WorkerError(
            f"a worker process ended with exit code {code} ({self.twin or 'before its first twin'}); what it printed "
            "is above, what was recorded is kept: resume (--resume), with workers = 1 if memory ran out"
        )


class TwinPool:
    """Worker processes that train twins while the trunks are being trained.

    Results come back in the order they are finished; what a worker has finished survives in the workspace's
    checkpoints until it is recorded.

    Args:
        count: Number of processes.
        setup: Plain values every worker is given first: `config`, `data_dir`, `out`, `threads`.
        progress: Counts the workers' steps too.
    """

    def __init__(self, count: int, setup: Mapping[str, Any], progress: Progress) -> None:
        self._count, self._setup, self._progress = count, json.dumps(setup), progress
        self._waiting: list[TwinName] = []
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def submit(self, twins: list[TwinName]) -> None:
        """Queue twins whose trunk is finished; workers are started when there is work for them."""
        self._waiting += twins
        while len(self._workers) < min(self._count, len(self._waiting)):
            worker = _Worker(self._setup)
            self._workers.append(worker)
            self._selector.register(worker.answers, selectors.EVENT_READ, worker)
        self._dispatch()

    @property
    def unfinished(self) -> bool:
        """Whether any twin is waiting or being trained."""
        return bool(self._waiting) or any(worker.twin for worker in self._workers)

    def collect(self, timeout: float) -> list[tuple[TwinName, list[Row]]]:
        """Return the twins finished since the last call, waiting up to `timeout` seconds for news.

        Raises:
            DivergedError: A twin's loss is not finite.
            WorkerError: A worker ended or failed otherwise.
        """
        finished = []
        for key, _ in self._selector.select(timeout):
            for message in key.data.messages():
                finished += self._heard(key.data, message)
        self._dispatch()
        return finished

    def _heard(self, worker: _Worker, message: Mapping[str, Any]) -> list[tuple[TwinName, list[Row]]]:
        if "error" in message:
            raise DivergedError(message["error"]) if message["diverged"] else WorkerError(message["error"])
        self._progress.skip(message["skipped"])
        self._progress.advance(message["advanced"])
        if "rows" not in message or worker.twin is None:
            return []
        twin, worker.twin = worker.twin, None
        return [(twin, message["rows"])]

    def _dispatch(self) -> None:
        for worker in self._workers:
            if worker.twin is None and self._waiting:
                worker.begin(self._waiting.pop(0))

    def __enter__(self) -> TwinPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.stop()
        self._selector.close()
