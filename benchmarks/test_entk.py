"""Kernels: time, peak memory and error, ours and the peers', on the same inputs."""

from __future__ import annotations

import time
from functools import lru_cache

import pytest
import torch

from benchmarks import accuracy, memory, peers
from benchmarks.workloads import WORKLOADS, Workload


@lru_cache(maxsize=1)
def _prepared(name: str):
    row = WORKLOADS[name]
    model, x = row.build()
    return model, x, accuracy.truth_of(row, model, x)


def test_entk(workload: Workload, peer: str, timed, rows, benchmark):
    """One peer on one workload: refused, wrong, or timed."""
    model, x, truth = _prepared(workload.name)
    row = {"workload": workload.name, "title": workload.title, "output": workload.output, "peer": peer}
    row["status"] = "failed"  # until it turns out otherwise
    rows.entk.append(row)
    started = time.perf_counter()
    try:
        kernel = peers.run(peer, model, x, workload.output)
    except peers.REFUSALS as error:
        if peer == peers.OURS:
            raise
        row.update(status="refuses", reason=peers.why_not(error))
        pytest.skip(f"{peer} refuses: {row['reason']}")
    once = time.perf_counter() - started
    row.update(error=truth.error(kernel), symmetry_error=accuracy.symmetry_error(kernel), checked=len(truth.samples))
    if row["error"] > accuracy.WRONG:
        row["status"] = "wrong"
        pytest.fail(f"{peer} is wrong on {workload.name}: relative error {row['error']:.1e}; not timed")
    del kernel
    row.update(status="timed", **timed(lambda: peers.run(peer, model, x, workload.output), once))
    row["peak_bytes"] = memory.peak_increase(workload.name, peer)
    row["threads"] = torch.get_num_threads()
    benchmark.extra_info.update({key: row[key] for key in ("error", "symmetry_error", "peak_bytes")})
