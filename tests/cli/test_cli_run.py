from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from twophase_fast.cli import main
from twophase_fast.storage import Trajectory


def invoke(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A finished run of the smoke preset, its page, and what the command printed."""
    out = tmp_path_factory.mktemp("runs") / "smoke.h5"
    return out, invoke("run", "--preset", "smoke", "--out", out)


def test_run_writes_run_and_page_and_prints_tables(smoke):
    out, result = smoke
    assert result.exit_code == 0, result.stderr
    assert out.is_file()
    assert out.with_suffix(".html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "Twin runs, main" in result.output
    assert f"wrote {out}" in result.output
    assert [path.suffix for path in sorted(out.parent.iterdir())] == [".h5", ".html"]


def test_control_twin_of_a_real_run_is_exactly_zero(smoke):
    control = next(line.split() for line in smoke[1].output.splitlines() if line.split()[:1] == ["control"])
    assert control[2:4] == ["0", "0"]


def test_nothing_is_overwritten_unasked(smoke):
    out, _ = smoke
    before = out.read_bytes()
    result = invoke("run", "--preset", "smoke", "--out", out)
    assert result.exit_code == 1
    assert "exists; replace it with --overwrite" in result.stderr
    assert out.read_bytes() == before


def test_resuming_a_finished_run_changes_nothing(smoke):
    out, _ = smoke
    before = out.read_bytes()
    result = invoke("run", "--preset", "smoke", "--out", out, "--resume", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert out.read_bytes() == before
    assert "Twin runs" not in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--preset", "smok"], 2, "did you mean 'smoke'"),
        (["--preset", "smoke", "--set", "stepz=3"], 2, "did you mean 'steps'"),
        (["--preset", "smoke", "--set", "steps"], 2, "expected key=value"),
        (["--preset", "smoke", "--set", "optimizer.lr=fast"], 2, "optimizer.lr is 'fast'"),
        (["--preset", "smoke", "--resume", "--overwrite"], 2, "contradict each other"),
        (["--preset", "smoke", "--set", 'data="cifar10"'], 1, "--data-dir"),
        (["--config", "none.toml"], 1, "cannot read the configuration none.toml"),
    ],
)
def test_bad_runs_write_nothing(tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    result = invoke("run", *arguments)
    assert result.exit_code == code
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_bad_toml_is_bad_usage(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("steps = [1,")
    result = invoke("run", "--config", path, "--out", tmp_path / "run.h5")
    assert result.exit_code == 2
    assert "not valid TOML" in result.stderr


def test_config_and_set_reach_the_run(tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text(
        'model = "small_cnn"\ndata = "fashion-mnist-subset"\nsteps = 9\nbatch_size = 8\ntest_size = 20\n'
        "[optimizer]\nlr = 0.1\n"
    )
    result = invoke(
        "run", "--config", config, "--out", tmp_path / "mine.h5", "--set", "steps=2", "--set", "seeds=[5]", "--no-page"
    )
    assert result.exit_code == 0, result.stderr
    assert not (tmp_path / "mine.html").exists()
    with Trajectory.open(tmp_path / "mine.h5") as trajectory:
        assert trajectory.config["steps"] == 2
        assert trajectory.children == ["main-seed5"]


def test_demo_is_the_demo_preset(monkeypatch, tmp_path):
    called = {}
    monkeypatch.setattr(
        "twophase_fast.cli.run.run_experiment", lambda settings, out, *rest: called.update(settings=settings, out=out)
    )
    monkeypatch.chdir(tmp_path)
    assert invoke("demo").exit_code == 0
    assert str(called["out"]) == "runs/demo.h5"
    assert called["settings"]["seeds"] == [0, 1, 2]


def test_report_of_a_run(smoke, tmp_path):
    out, _ = smoke
    page, figure = tmp_path / "page.html", tmp_path / "figure.png"
    result = invoke("report", out, "--out", page, "--headline", figure, "--tables")
    assert result.exit_code == 0, result.stderr
    assert "<figure" in page.read_text(encoding="utf-8")
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "Kernel motion, main" in result.output
    again = invoke("report", out, "--out", page)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    assert invoke("report", out, "--out", page, "--overwrite").exit_code == 0


def test_info_of_a_run(smoke):
    out, _ = smoke
    text = invoke("info", out).output
    assert "main-seed0" in text
    assert "table       twins: " in text
    contents = json.loads(invoke("info", out, "--json").output)
    with Trajectory.open(out) as trajectory:
        child = trajectory.child("main-seed0")
        assert contents["children"]["main-seed0"]["kernel_steps"] == child.steps
        assert contents["children"]["main-seed0"]["kernel"]["shape"] == list(child.kernel(0).shape)
        assert contents["tables"]["twins"]["rows"] == len(trajectory.table("twins")["seed"])
        assert contents["config"] == trajectory.config


def test_verify_of_a_run(smoke, tmp_path):
    out, _ = smoke
    good = invoke("verify", out)
    assert good.exit_code == 0, good.stderr
    assert "everything is as it should be" in good.output
    damaged = tmp_path / "damaged.h5"
    data = bytearray(out.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = bytes(4096)
    damaged.write_bytes(data)
    assert invoke("verify", damaged).exit_code == 1


@pytest.mark.parametrize("command", ["report", "info", "verify"])
def test_a_file_that_is_no_run_fails_with_one_line(tmp_path, command):
    path = tmp_path / "text.h5"
    path.write_text("not HDF5")
    result = invoke(command, path)
    assert result.exit_code == 1
    assert "text.h5" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == [path]
