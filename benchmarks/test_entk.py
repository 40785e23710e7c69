"""Kernels: time, peak memory and error, ours and the peers', on the same inputs."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

import twophase_fast as tp
from benchmarks import accuracy, peers
from benchmarks.workloads import WORKLOADS, Workload


@lru_cache(maxsize=1)
def _prepared(name: str):
    row = WORKLOADS[name]
    model, x = row.build()
    return model, x, accuracy.truth_of(row, model, x)


@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
def test_entk(workload: Workload, peer: str, timed, rows, benchmark):
    """One peer on one workload: hopeless, refused, wrong, or timed."""
    row = {"workload": workload.name, "title": workload.title, "output": workload.output, "peer": peer}
    row["status"] = "failed"  # until it turns out otherwise
    rows.entk.append(row)
    if peer in workload.hopeless:
        row.update(status="not tried", reason=workload.hopeless[peer])
        pytest.skip(f"{peer} is not tried: {row['reason']}")
    model, x, truth = _prepared(workload.name)
    try:
        with peers.session(peer, workload, model, x) as session:
            _measure(row, session, truth, timed)
        if peer == peers.OURS:
            _predict(row, workload, model, x)
    except peers.REFUSALS as error:
        if peer in (peers.OURS, peers.OURS_HIGH):
            raise
        row.update(status=peers.status_of(error), reason=peers.why_not(error))
        pytest.skip(f"{peer}: {row['status']}: {row['reason']}")
    benchmark.extra_info.update({key: row[key] for key in ("error", "symmetry_error", "peak_bytes")})


def _measure(row: dict, session: peers.Session, truth: accuracy.Truth, timed) -> None:
    """Check the kernel, and only then time it."""
    error, symmetry = truth.error(session.kernel), accuracy.symmetry_error(session.kernel)
    row.update(error=error, symmetry_error=symmetry, checked=len(truth.samples), threads=torch.get_num_threads())
    if error > (accuracy.WRONG_HIGH if row["peer"] == peers.OURS_HIGH else accuracy.WRONG):
        row["status"] = "wrong"
        pytest.fail(f"{row['peer']} is wrong on {row['workload']}: relative error {error:.1e}; not timed")
    row.update(status="timed", **timed(session.run, session.once))
    row["peak_bytes"] = session.peak_bytes()


def _predict(row: dict, workload: Workload, model: torch.nn.Module, x: torch.Tensor) -> None:
    """Note what the planner says beforehand of the same kernel."""
    plan = tp.plan(model, x, output=workload.output)
    row.update(predicted_seconds=plan.seconds, predicted_peak_bytes=plan.peak_bytes)
