"""The benchmark harness: its truth is true, its checks refuse, its tables say what the results say."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import accuracy, jax_peer, memory, op_claims, op_rivals, peers, readme, truth
from benchmarks.claims import CLAIMS, Claim, describe, prediction
from benchmarks.workloads import WORKLOADS, of_suite
from twophase_fast.ntk import naive_entk
from twophase_fast.ops._workloads import DEFAULT, SMOKE

RESULTS = {
    "environment": {
        "time": "2026-01-02T03:04:05+00:00",
        "hardware": {"processor": "CPU", "cpu_capability": "AVX2"},
        "versions": {"torch": "2", "python": "3"},
    },
    "threads": 2,
    "peaks": {"gemm_flops": 1.8e11, "bf16_flops": 6.5e11, "read_bandwidth": 2.0e10},
    "entk": [
        {"workload": "a", "title": "A", "peer": "twophase_fast", "status": "timed", "seconds": 0.02,
         "peak_bytes": 10_000_000, "error": 2e-7},
        {"workload": "a", "title": "A", "peer": "torch.func", "status": "timed", "seconds": 1.0,
         "peak_bytes": 5_000_000_000, "error": 3e-7},
        {"workload": "b", "title": "B", "peer": "torchjd", "status": "refuses", "reason": "BatchNorm"},
    ],
    "ops": [
        {"op": "gram", "sizes": {"n": 3, "m": 0}, "backend": "cpu", "status": "timed", "seconds": 2.0, "error": 1e-7,
         "of_gemm": 0.5, "of_bandwidth": 0.25},
        {"op": "gram", "sizes": {"n": 3, "m": 0}, "backend": "cpu high", "status": "timed", "seconds": 1.0,
         "error": 5e-6, "of_gemm": 1.0, "of_bandwidth": 0.5},
        {"op": "gram", "sizes": {"n": 3, "m": 0}, "backend": "reference", "status": "timed", "seconds": 5.0,
         "error": 1e-7, "of_gemm": 0.2, "of_bandwidth": 0.1},
        {"op": "gram", "sizes": {"n": 3, "m": 0}, "backend": "torch x @ y.T", "status": "timed", "seconds": 4.0,
         "error": 1e-7, "of_gemm": 0.2, "of_bandwidth": 0.1},
        {"op": "gram", "sizes": {"n": 3}, "backend": "triton", "status": "wrong", "error": 1.0},
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", [row.name for row in of_suite("smoke")])
def test_truth_equals_the_definition_whatever_the_groups(name, monkeypatch):
    row = WORKLOADS[name]
    model, x = row.build()
    expected = naive_entk(model.double(), x[:2].double(), output=row.output)
    for group_bytes in (1 << 30, 1 << 18):
        monkeypatch.setattr(truth, "GROUP_BYTES", group_bytes)
        torch.testing.assert_close(truth.naive_kernel(model, x[:2], row.output), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("peer", peers.NAMES)
def test_peers_compute_the_same_kernel_every_time(peer):
    if peer == "torchjd":
        pytest.importorskip("torchjd")
    if peer in jax_peer.IMPLEMENTATIONS and not jax_peer.READY.exists():
        pytest.skip("neural-tangents has an environment of its own: make bench-peers")
    workload = WORKLOADS["smoke-mlp"]
    model, x = workload.build()
    truth = naive_entk(copy.deepcopy(model).double(), x.double())
    with peers.session(peer, workload, model, x) as session:
        assert accuracy.relative_error(session.kernel, truth) < 1e-5
        assert accuracy.symmetry_error(session.kernel) < 1e-5
        session.run()


def test_chunks_of_torch_func_change_nothing_but_rounding():
    model, x = WORKLOADS["smoke-mlp"].build()
    whole, chunked = (peers.torch_func(model, x, "full", chunk=chunk) for chunk in (None, 3))
    assert accuracy.relative_error(chunked, whole.double()) < 1e-6


def test_errors_catch_what_is_wrong():
    true = torch.ones(2, 2, dtype=torch.float64)
    assert accuracy.relative_error(true, true) == 0
    assert accuracy.relative_error(2 * true, true) == 1
    assert accuracy.relative_error(true[:1], true) == float("inf")
    assert accuracy.relative_error(true * float("nan"), true) == float("inf")
    assert accuracy.symmetry_error(torch.tensor([[1.0, 2.0], [1.0, 2.0]])) == 0.5


def test_workloads_are_reproducible_and_rows_of_ops_exist():
    for row in of_suite("smoke"):
        (first, x), (second, y) = row.build(), row.build()
        assert torch.equal(x, y)
        assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    for work in (*DEFAULT, *SMOKE):
        assert work.case.name == work.op
        assert work.bytes(work.sizes) > 0


@pytest.mark.parametrize(("op", "rival"), [(op, rival) for op in op_rivals.RIVALS for rival in op_rivals.RIVALS[op]])
def test_formulations_in_plain_torch_are_the_op(op, rival):
    work = next(row for row in SMOKE if row.op == op)
    inputs = work.case.inputs(work.sizes, torch.float64)
    found = rival.values(rival.call(inputs))  # before ops that write in place do
    truth = work.case.values(work.case.call(**inputs, backend="reference"))
    for value, index in zip(found, rival.picks or range(len(truth)), strict=True):
        assert accuracy.relative_error(value, truth[index]) < 1e-12


def test_formulations_that_need_too_much_memory_are_left_out():
    names = [rival.name for rival in op_rivals.rivals("factored_gram", {"n": 64, "c": 10, "t": 64, "d": 576, "p": 64})]
    assert names == ["torch materialised", "torch half-factored"]


def test_the_sizes_that_matter_are_there():
    labels = {row.label for row in DEFAULT}
    assert {f"gram-n{n}" for n in (320, 640, 1280, 2560)} <= {label.rsplit("-", 1)[0] for label in labels}
    for c in (1, 10):
        assert f"factored_gram-n64-c{c}-t1-d1024-p1024" in labels
        assert {f"factored_gram-n64-c{c}-t{t}-d576-p64" for t in (4, 16, 64)} <= labels
    elements = {
        (row.sizes["runs"], row.sizes["runs"] * (3 * row.sizes["p"] + 1)) for row in DEFAULT if "runs" in row.sizes
    }
    assert {(1, 64_000_000), (16, 64_000_000)} == {(runs, e) for runs, e in elements if e == 64_000_000}


def test_peak_memory_is_measured_in_a_child():
    """The Jacobian of the small MLP for 8 samples of 10 outputs takes 8 MB."""
    increase = memory.peak_increase("smoke-mlp", "torch.func")
    assert increase is None or 8 * 10 * (784 * 32) * 4 < increase < 1e9
    with pytest.raises(RuntimeError, match="nobody"):
        memory.peak_increase("smoke-mlp", "nobody")


def row(peer: str, seconds: float, workload: str = "a", memory: int | None = 100, error: float = 1e-7) -> dict:
    return {"workload": workload, "title": workload.upper(), "peer": peer, "status": "timed", "seconds": seconds,
            "peak_bytes": memory, "error": error}  # fmt: skip


def test_claims_name_workloads():
    assert {claim.workload for claim in CLAIMS} <= set(WORKLOADS)
    assert {claim.ours for claim in CLAIMS} == {peers.OURS, peers.OURS_HIGH}


@pytest.mark.parametrize(
    ("ours", "faster", "holds"),
    [
        (row(peers.OURS, 0.5, memory=25), 4, True),
        (row(peers.OURS, 0.5, memory=25), 4.1, False),
        (row(peers.OURS, 0.5, memory=26), 4, False),
        (row(peers.OURS, 0.5, memory=25, error=4.1e-7), 4, False),
        (row(peers.OURS_HIGH, 0.5, memory=25, error=9e-6), 4, True),
        (row(peers.OURS_HIGH, 0.5, memory=25, error=2e-5), 4, False),
    ],
)
def test_claims_are_checked_against_the_best_peer(ours, faster, holds):
    rows = [ours, row("torch.func", 3, error=2e-7), row("neural-tangents 3", 2), row("torchjd", 0.1, workload="b")]
    result = Claim("a", ours["peer"], faster).check(rows)
    assert result["holds"] is holds
    assert (result["best_peer"], result["measured_faster"]) == ("neural-tangents 3", 4)
    assert describe(result).startswith("holds" if holds else "DOES NOT HOLD")


def test_a_claim_without_figures_is_not_measured():
    alone = Claim("a", peers.OURS, 1).check([row(peers.OURS, 1)])
    assert alone["holds"] is None
    assert "not measured" in describe(alone)


def op_row(backend: str, seconds: float, unit: str | None = None, error: float = 1e-7) -> dict:
    return {"op": "gram", "sizes": {"batch": 0, "n": 9, "m": 0}, "backend": backend, "status": "timed",
            "seconds": seconds, "error": error, "matrix_unit": unit}  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "holds"),
    [
        (op_row("cpu", 1.0), True),
        (op_row("cpu", 1.1), False),
        (op_row("cpu high", 1.0), None),
        (op_row("cpu high", 1.0, "amx-emulated"), None),
        (op_row("cpu high", 1.0, "amx", 9e-6), True),
        (op_row("cpu high", 1.0, "amx", 2e-5), False),
    ],
)
def test_claims_on_ops_are_checked_against_plain_torch(ours, holds):
    rows = [ours, op_row("torch matmul", 3.0), op_row("torch slow", 4.0), op_row("reference", 0.1)]
    result = op_claims.OpClaim("gram-n9", ours["backend"], 3).check(rows)
    assert result["holds"] is holds
    expected = {True: "holds", False: "DOES NOT HOLD", None: "not measured"}[holds]
    assert op_claims.describe(result).startswith(expected)


def test_claims_on_ops_name_rows():
    labels = {claim.label: claim for claim in op_claims.OP_CLAIMS}
    assert labels.keys() <= {op_claims.label({"op": row.op, "sizes": row.sizes}) for row in DEFAULT}
    assert len([label for label in labels if label.startswith("factored_gram-n64-c10-t")]) == 4


def test_tables_replace_what_stands_between_the_markers(tmp_path):
    page = tmp_path / "README.md"
    start, end = readme.markers("bench")
    page.write_text(f"# Title\n\n{start}\nold\n{end}\n\nafter\n")
    readme.update(page, readme.tables(json.loads(json.dumps(RESULTS))))
    text = page.read_text()
    assert text.startswith("# Title\n\n")
    assert text.endswith(f"{end}\n\nafter\n")
    assert "old" not in text
    assert "| A | torch.func, 1 s | **50** | – | 10 MB | 5 GB | 0.00 |" in text
    assert "| A | 20 ms, 10 MB, error 2e-07 | 1 s, 5 GB, error 3e-07 | – |" in text
    assert "| B | – | – | refuses |" in text
    assert "| gram | n=3 | cpu | 2 s | x @ y.T, 4 s | **2** | **4** | 50% | 25% | 1e-07 |" in text
    assert "cpu high" not in text
    assert "| gram | n=3 | triton | wrong | | | | |  | 1e+00 |" in text
    assert "reference" not in text
    assert "float32 180 GFLOP/s" in text
    readme.update(page, "again")
    assert page.read_text().count("again") == 1


def test_a_page_without_markers_is_refused(tmp_path):
    page = tmp_path / "README.md"
    start, end = readme.markers("bench")
    for content in ("nothing", start, f"{end}\n{start}"):
        page.write_text(content)
        with pytest.raises(ValueError, match="needs one line"):
            readme.update(page, "x")
        assert page.read_text() == content


@pytest.mark.parametrize(
    ("seconds", "peak", "holds"), [(1.0, 100, True), (1.6, 100, False), (0.6, 100, False), (1.0, 75, False)]
)
def test_predictions_are_held_against_what_was_measured(seconds, peak, holds):
    row = {"workload": "w", "seconds": seconds, "peak_bytes": peak, "predicted_seconds": 1.0}
    line = prediction({**row, "predicted_peak_bytes": 100})
    assert line.startswith("holds" if holds else "DOES NOT HOLD")
    assert prediction({"workload": "w", "seconds": 1.0}) is None
