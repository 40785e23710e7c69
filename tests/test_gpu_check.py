"""The parts of `make gpu-check` that need no GPU."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_rows import GpuRow, rows

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
BANDWIDTH = 1e9


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_does_nothing():
    finished = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], capture_output=True, text=True, cwd=ROOT)
    assert finished.returncode == 2
    assert "torch sees none; nothing was run" in finished.stderr
    assert finished.stdout == ""


def constant_time(run) -> float:
    run()
    return 0.25


def made_row(**changes) -> GpuRow:
    """Doubles a vector; the peer does the same."""
    x = torch.arange(1.0, 5.0)
    row = GpuRow("doubling", lambda device: (lambda: 2 * x, lambda: x + x, lambda: 2 * x.double()), "sum")
    return dataclasses.replace(row, **changes)


def test_a_row_says_how_fast_and_how_wrong():
    found = gpu.measure(made_row(flops=4.0, peer_flops=2.0, bytes=1e8), CPU, constant_time, BANDWIDTH)
    assert found["status"] == "timed"
    assert found["error"] == 0.0
    assert found["times_faster"] == 1.0
    assert found["useful_flops_per_second"] == 16.0
    assert found["of_peer_rate"] == 2.0
    assert found["of_copy_bandwidth"] == pytest.approx(0.4)


def test_what_is_wrong_is_not_timed():
    x = torch.ones(4)

    def timed(run) -> float:
        raise AssertionError("timed")

    for wrong in (1.01 * x, x * torch.nan):
        row = made_row(make=lambda device, wrong=wrong: (lambda: wrong, lambda: x, lambda: x.double()))
        assert gpu.measure(row, CPU, timed, BANDWIDTH)["status"] == "wrong"


def test_rows_after_the_deadline_are_listed_as_left_out():
    assert gpu.measure_all([made_row()], CPU, 0.0, BANDWIDTH) == [{"name": "doubling", "status": "left out"}]


def test_the_small_rows_run_interpreted(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    small = [row for row in rows(small=True) if row.name.startswith(("gram", "pair_moments", "symmetrize_"))]
    assert len(small) == 6
    for row in small:
        assert gpu.measure(row, CPU, constant_time, BANDWIDTH)["status"] == "timed", row.name


def test_names_of_files():
    assert gpu.file_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3.json"
    assert gpu.copy_bandwidth(CPU, 1000, constant_time) == 32000.0
