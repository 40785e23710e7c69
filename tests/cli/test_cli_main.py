from __future__ import annotations

import shlex
import subprocess
import sys
import warnings

import click
import pytest
from click.testing import CliRunner

from twophase_fast._types import ConfigError, StorageError
from twophase_fast.cli import COMMANDS, main
from twophase_fast.cli._command import Command
from twophase_fast.cli.run import EXAMPLE
from twophase_fast.experiments import load_preset, resolve_config, set_value
from twophase_fast.experiments.build import make_plan

PROGRAM = [sys.executable, "-c", "from twophase_fast.cli import main; main()"]


def invoke(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_help_lists_every_command():
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name in COMMANDS)
    assert "twophase demo" in result.output


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself_with_an_example(name):
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    twophase {name}" in result.output
    assert "--debug" in result.output


def test_presets_with_the_changes_of_the_example_fit_together():
    examples = [shlex.split(line) for line in EXAMPLE.splitlines() if "--preset" in line]
    assert len(examples) == 2
    for words in examples:
        settings = load_preset(words[words.index("--preset") + 1])
        for change in (words[k + 1] for k, word in enumerate(words) if word == "--set"):
            settings = set_value(settings, change)
        make_plan(resolve_config(settings))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rport"], "no command 'rport'; did you mean 'report'"),
        (["report"], "Missing argument"),
        (["report", "x.h5", "--nonsense"], "No such option"),
        (["run"], "give either --config FILE.toml or --preset NAME"),
        (["run", "--preset", "demo", "--config", "x.toml"], "give either"),
        (["entk", "mlp", "x.npy", "--out", "k.txt"], "must end in .h5 or .npy"),
        (["entk", "mlp", "x.npy", "--out", "k.npy", "--memory-budget", "lots"], "Invalid value for '--memory-budget'"),
        (["entk", "mlp", "x.npy"], "Missing option '--out'"),
        (["entk", "mlp", "x.npy", "--out", "k.npy", "--n", "0"], "Invalid value for '--n'"),
        (["entk", "mlp", "cifar", "--dry-run"], "or one of fashion-mnist-subset"),
        (["entk", "mlp", "x.npy", "--dry-run", "--profile", "h100"], "use one of a100-40gb, a100-80gb, h100-80gb"),
        (["entk", "mlp", "x.npy", "--dry-run", "--model-arg", "width=3"], "does not take width=3"),
    ],
)
def test_bad_usage_is_2_with_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_no_command_prints_help_and_is_2():
    result = invoke()
    assert result.exit_code == 2
    assert "Usage: twophase" in result.stderr


def test_codes_of_a_real_process(tmp_path):
    missing = run("report", str(tmp_path / "none.h5"))
    assert missing.returncode == 1
    assert missing.stderr.startswith("twophase: error: there is no trajectory at")
    assert "Traceback" not in missing.stderr
    assert run("nonsense").returncode == 2


def test_debug_lets_the_error_through(tmp_path):
    assert isinstance(invoke("info", str(tmp_path / "none.h5"), "--debug").exception, StorageError)
    assert isinstance(invoke("info", str(tmp_path / "none.h5")).exception, SystemExit)


def test_debug_shows_what_somebody_elses_code_raised(monkeypatch):
    @click.command(cls=Command, example="twophase fails")
    def fails() -> None:
        try:
            raise ZeroDivisionError("theirs")
        except ZeroDivisionError as error:
            raise click.ClickException("their function raised") from error

    monkeypatch.setattr(main, "get_command", lambda ctx, name: fails)
    assert isinstance(invoke("doctor", "--debug").exception, click.ClickException)
    result = invoke("doctor")
    assert (result.exit_code, result.stderr) == (1, "twophase: error: their function raised\n")


def test_help_does_not_import_heavy_modules():
    code = (
        "import sys; from twophase_fast.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'jinja2', 'h5py'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (StorageError("disk full"), 1, "twophase: error: disk full"),
        (ConfigError("unknown key"), 2, "twophase: error: unknown key"),
        (StorageError("two\nlines"), 1, "twophase: error: two lines\n"),
        (PermissionError(13, "Permission denied", "a.h5"), 1, "Permission denied: 'a.h5'"),
        (KeyboardInterrupt(), 1, "twophase: error: interrupted"),
        (KeyboardInterrupt("stopped; go on with --resume"), 1, "stopped; go on with --resume"),
    ],
)
def test_errors_become_one_line_and_a_code(monkeypatch, error, code, words):
    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(main, "get_command", lambda ctx, name: fails)
    result = invoke("doctor")
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_mistake_in_the_program_is_not_hidden(monkeypatch):
    @click.command()
    def fails() -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(main, "get_command", lambda ctx, name: fails)
    assert isinstance(invoke("doctor").exception, AssertionError)


def test_warnings_are_one_line(monkeypatch):
    @click.command()
    def warns() -> None:
        warnings.warn("something is slow", RuntimeWarning, stacklevel=1)

    monkeypatch.setattr(main, "get_command", lambda ctx, name: warns)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = invoke("doctor")
    assert result.exit_code == 0
    assert result.stderr == "twophase: warning: something is slow\n"


def test_version():
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.output.startswith("twophase ")
