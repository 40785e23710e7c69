"""The parts of `make gpu-check` that need no GPU."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import (
    gpu,
    gpu_measure,
    gpu_models,
    gpu_pullback_rows,
    gpu_rows,
    gpu_smoke,
    gpu_stages,
    gpu_suite,
    gpu_worker,
)
from benchmarks.gpu_items import Item
from benchmarks.gpu_rows import GpuRow
from benchmarks.gpu_stages import Stage

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
BANDWIDTH = 1e9


def silent(found) -> None:
    """Takes notes nobody reads."""


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
    row = made_row(flops=4.0, peer_flops=2.0, bytes=1e8)
    found = gpu_measure.measure(row, CPU, constant_time, BANDWIDTH)
    assert found["status"] == "timed"
    assert found["error"] == 0.0
    assert found["times_faster"] == 1.0
    assert found["host_seconds"] > 0
    assert found["useful_flops_per_second"] == 16.0
    assert found["of_peer_rate"] == 2.0
    assert found["of_copy_bandwidth"] == pytest.approx(0.4)
    assert "of_copy_bandwidth" not in gpu_measure.measure(row, CPU, constant_time, None)


def test_what_is_wrong_is_not_timed():
    x = torch.ones(4)

    def timed(run) -> float:
        raise AssertionError("timed")

    for wrong in (1.01 * x, x * torch.nan):
        row = made_row(make=lambda device, wrong=wrong: (lambda: wrong, lambda: x, lambda: x.double()))
        assert gpu_measure.measure(row, CPU, timed, BANDWIDTH)["status"] == "wrong"


def test_an_item_that_raises_keeps_its_notes_and_says_why(capsys):
    def run(note):
        note({"error": 1e-7})
        raise RuntimeError("no such kernel")

    found = gpu_worker.attempt(Item("bad", run))
    assert found["status"] == "failed"
    assert found["error"] == 1e-7
    assert found["error_text"] == "RuntimeError: no such kernel"
    assert any("raise RuntimeError" in line for line in found["where"])
    assert json.loads(capsys.readouterr().out) == {"note": {"error": 1e-7}}


PROGRAM = """
import json, sys, time
first = int(sys.argv[sys.argv.index("--first") + 1])
def say(**line): print(json.dumps(line), flush=True)
for index, name in list(enumerate(["good", "dies", "breaks", "hangs", "last"]))[first:]:
    say(begin=name, index=index)
    if name == "dies":
        say(note={"seconds": 2.0})
        sys.exit("segmentation fault, say")
    if name == "hangs":
        print("not JSON", flush=True)
        time.sleep(60)
    say(end={"status": "failed" if name == "breaks" else "timed"})
    if name == "breaks":
        sys.exit(3)
"""


def test_items_behind_one_that_ends_the_process_are_run_all_the_same(monkeypatch):
    command = lambda self, part, first: [sys.executable, "-c", PROGRAM, "--first", str(first)]  # noqa: E731
    monkeypatch.setattr(Stage, "_command", command)
    monkeypatch.setattr(gpu_stages, "ITEM_SECONDS", 5.0)
    found: dict = {}
    assert Stage("ops").run(time.monotonic() + 60, found.__setitem__)
    assert {name: row["status"] for name, row in found.items()} == {
        "good": "timed", "dies": "failed", "breaks": "failed", "hangs": "failed", "last": "timed",
    }  # fmt: skip
    assert found["dies"]["seconds"] == 2.0
    assert "status 1" in found["dies"]["error_text"]
    assert "segmentation fault, say" in found["dies"]["standard_error"]
    assert found["hangs"]["error_text"] == "took too long"


def test_a_stage_ends_at_its_deadline(monkeypatch):
    program = 'import json, time\nprint(json.dumps({"begin": "a", "index": 0}), flush=True)\ntime.sleep(60)'
    monkeypatch.setattr(Stage, "_command", lambda self, part, first: [sys.executable, "-c", program])
    found: dict = {}
    started = time.monotonic()
    assert not Stage("ops", parts=2).run(started + 1, found.__setitem__)
    assert found["a"]["status"] == "failed"


def test_a_process_that_cannot_start_ends_the_stage(monkeypatch):
    monkeypatch.setattr(Stage, "_command", lambda self, part, first: [sys.executable, "-c", "import no_such_module"])
    with pytest.raises(gpu_stages.StageError, match="no_such_module"):
        Stage("ops").run(time.monotonic() + 60, lambda name, row: None)


def test_results_are_on_disk_after_every_item(tmp_path, capsys):
    folders = [tmp_path / "a", tmp_path / "b"]
    results = gpu.Results("Some GPU (80 GB)", folders)
    results.item("ops", "gram", {"status": "unfinished", "error": 1e-7})
    results.item("ops", "gram", {"status": "timed", "error": 1e-7, "seconds": 0.5})
    for folder in folders:
        stored = json.loads((folder / "some-gpu-80-gb.json").read_text())
        assert stored["ops"]["gram"]["seconds"] == 0.5
        assert len(list(folder.iterdir())) == 1
    assert results.bad() == []
    results.item("smoke", "gram", {"status": "wrong"})
    results.set("suite", {"status": "failed", "parts": {"on the GPU": {"status": "failed"}}})
    assert results.bad() == ["smoke: gram", "suite: on the GPU"]
    assert capsys.readouterr().out.count("ops: gram: timed") == 1
    assert "bad: suite: on the GPU" in results.summary()


def test_verbose_lines_of_pytest_are_counted():
    log = """tests/a.py::test_one[x y] PASSED [ 10%]
[gw3] [ 20%] FAILED tests/b.py::test_two[1.5 z]
[gw0] [ 30%] SKIPPED tests/b.py::test_three
FAILED tests/b.py::test_two[1.5 z] - assert False
"""
    counted = gpu_suite.counted(log)
    assert counted["passed"] == counted["failed"] == counted["skipped"] == 1
    assert counted["failures"] == ["tests/b.py::test_two[1.5 z]"]


def test_every_op_is_in_the_smoke_stage(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    items = list(gpu_smoke.items(CPU, small=True))
    assert len(items) > 50
    for item in items[::9]:
        assert item.run(silent)["status"] == "right", item.name


def test_a_wrong_op_is_called_wrong(monkeypatch):
    case = next(c for c in gpu_smoke.OP_CASES if c.name == "gram")
    call = dataclasses.replace(case, call=lambda **inputs: 1.001 * case.call(**{**inputs, "backend": "reference"}))
    true = dataclasses.replace(call, truth=lambda inputs: [inputs["x"].double() @ inputs["x"].double().mT])
    found = gpu_smoke.check(true, {"batch": 0, "n": 5, "m": 0, "p": 7}, torch.float32, "high", CPU)
    assert found["status"] == "wrong"
    assert found["error"] == pytest.approx(1e-3, rel=0.01)


def test_the_small_rows_run_interpreted(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    small = [r for r in gpu_rows.rows(small=True) if r.name.startswith(("gram", "grouped", "pair_moments", "symm"))]
    assert len(small) == 7
    for row in small:
        assert gpu_measure.measure(row, CPU, constant_time, BANDWIDTH)["status"] == "timed", row.name


def test_the_small_rows_of_the_pull_back_run_interpreted(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    names = [row.name.split()[0] for row in gpu_pullback_rows.rows(small=True)]
    assert names == ["batch_norm_grad", "relu_grad_", "layer_norm_grad", "conv_input_grad", "batched_product_"]
    full = {row.name.split()[0] for row in gpu_pullback_rows.rows()}
    assert full == {*names, "linear_input_grad_"}
    for row in gpu_pullback_rows.rows(small=True):
        found = gpu_measure.measure(row, CPU, constant_time, BANDWIDTH)
        assert found["status"] == "timed", row.name
        assert found["of_copy_bandwidth"] > 0


def test_a_small_model_is_checked_and_timed(monkeypatch):
    monkeypatch.setattr(gpu_models, "ROUNDS", 1)
    row = next(row for row in gpu_models.rows(small=True) if row.name.startswith("FCN"))
    notes: list = []
    found = gpu_models.measure(row, "highest", CPU, lambda known: notes.append(dict(known)), peer=True)
    assert found["status"] == "timed"
    assert found["error"] < 1e-6
    assert found["peer_differs"] < 1e-5
    assert found["blocks"] == 1
    assert found["warm_seconds"] > 0
    assert notes[0].keys() == {"status", "error", "allowed", "precision_that_ran"}


def test_names_of_files():
    assert gpu.file_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3.json"
    assert gpu_measure.copy_bandwidth(CPU, 1000, constant_time) == 32000.0
