import io
import json
import os
import subprocess
import sys
import time

import pytest

from twophase_fast.experiments import pool as module
from twophase_fast.experiments import run_config, worker
from twophase_fast.storage import Trajectory
from twophase_fast.training import DivergedError

STUCK = """
import json, sys, time
from twophase_fast.experiments import pool, run_config

def collect(self, timeout):
    if self._workers:
        print(*(worker.process.pid for worker in self._workers), flush=True)
        time.sleep(600)
    return []

pool.TwinPool.collect = collect
run_config(json.loads(sys.argv[1]), sys.argv[2])
"""


@pytest.fixture
def spread(config):
    """The tiny configuration with twins in two worker processes."""
    return {**config, "workers": 2}


@pytest.fixture
def single(spread):
    """One twin, so one worker."""
    chaos = {**spread["chaos"], "spawn_steps": [3], "control_spawn_steps": []}
    return {**spread, "seeds": [0], "cone": None, "controls": {}, "chaos": chaos}


@pytest.fixture(scope="module")
def alone(whole_config, tmp_path_factory):
    """The same run in one process."""
    out = tmp_path_factory.mktemp("alone") / "run.h5"
    run_config(whole_config, out)
    return out


@pytest.fixture
def pids(monkeypatch):
    """Process ids of the workers that were started."""
    started = []
    original = module._Worker.__init__

    def note(self, setup):
        original(self, setup)
        started.append(self.process.pid)

    monkeypatch.setattr(module._Worker, "__init__", note)
    return started


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_change_no_number_and_leave_nothing_behind(spread, alone, tmp_path, identical, pids):
    shared = run_config(spread, tmp_path / "spread.h5")
    assert shared.config == {**Trajectory.open(alone).config, "workers": 2}
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)
    assert identical(alone, tmp_path / "spread.h5", but={"config"})


def test_a_run_begun_with_workers_may_end_without(config, spread, alone, tmp_path, identical, monkeypatch, pids):
    out = tmp_path / "run.h5"
    with monkeypatch.context() as patched:
        original, calls = module.TwinPool.collect, []

        def collect(self, timeout):
            finished = original(self, timeout)
            calls.extend(finished)
            if len(calls) >= 3:
                raise KeyboardInterrupt  # with rows that were computed and are not recorded yet
            return finished

        patched.setattr(module.TwinPool, "collect", collect)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            run_config(spread, out)
    assert not any(alive(pid) for pid in pids)
    run_config(config, out, resume=True)
    assert identical(alone, out, but={"config"})


def test_a_worker_that_dies_stops_the_run_with_a_reason(single, tmp_path, monkeypatch):
    original = module._Worker.begin

    def begin(self, twin):
        original(self, twin)
        self.process.kill()

    with monkeypatch.context() as patched:
        patched.setattr(module._Worker, "begin", begin)
        with pytest.raises(module.WorkerError, match=r"exit code -9 \(main-seed0: twin from step 3\); .*--resume"):
            run_config(single, tmp_path / "run.h5")
    assert Trajectory.open(tmp_path / "run.h5").children


def test_a_twin_that_diverges_in_a_worker_says_so(single, tmp_path):
    single["chaos"]["perturbation"] = {"kind": "gaussian", "norm": 1e38}
    with pytest.raises(DivergedError, match=r"main-seed0: twin from step 3: the loss is .* of seed 0"):
        run_config(single, tmp_path / "run.h5")


def test_workers_end_when_the_process_that_started_them_is_killed(single, tmp_path):
    command = [sys.executable, "-c", STUCK, json.dumps(single), str(tmp_path / "run.h5")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    children = [int(pid) for pid in process.stdout.readline().split()]
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(children) == 1
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in children)


def test_a_worker_in_the_middle_of_a_twin_notices_that_nobody_listens(monkeypatch):
    class Gone(BaseException):
        pass

    def leave(code):
        raise Gone

    reports = worker._Reports(io.StringIO())
    reports.advance()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Gone):
        reports.advance()
