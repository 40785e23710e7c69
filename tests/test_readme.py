"""The README's Python runs as it stands."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

import twophase_fast as tp
from twophase_fast.cli import main

README = Path(__file__).parents[1] / "README.md"


COMMANDS = re.findall(r"^twophase (.*?)(?:  +#.*)?$", README.read_text(), re.MULTILINE)


def train_one_step(model, inputs, labels):
    F.cross_entropy(model(inputs), labels).backward()
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(0.1 * p.grad)
            p.grad = None


def test_kernel_and_tracker_of_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    kernel_of_my_model, tracker_in_my_loop = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names = {"train_one_step": train_one_step}
    exec(kernel_of_my_model, names)
    assert names["K"].shape == (64, 64, 10, 10)
    names["batches"] = [(torch.randn(4, 784), torch.zeros(4, dtype=torch.long))] * 201
    exec(tracker_in_my_loop, names)
    rank, first_row, *_ = capsys.readouterr().out.splitlines()
    assert 1 < float(rank) < 640
    assert first_row.startswith("[[0.")


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_readme_parse(line):
    name, *arguments = shlex.split(line)
    command = main.get_command(None, name)
    command.make_context(name, arguments)  # parses, and runs nothing


def test_commands_of_the_readme_that_need_no_data_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line in COMMANDS if "fashion-mnist-subset" in line]
    result = CliRunner().invoke(main, shlex.split(line.replace("--n 32", "--n 3")))
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "kernel.npy").exists()


def test_the_page_of_a_run_is_made_again_as_the_readme_says(tmp_path, monkeypatch):
    (line,) = [line for line in COMMANDS if line.startswith("report ")]
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with tp.Trajectory.create("runs/mine.h5", config={}) as run:
        run.append(0, metrics={"test_loss": 1.0})
    Path("runs/mine.html").write_text("the page of the run")
    result = CliRunner().invoke(main, shlex.split(line))
    assert "exists" not in result.stderr


def test_errors_are_public():
    with pytest.raises(tp.InputError, match=r"nn\.Module"):
        tp.entk(None, torch.zeros(2, 3))
    with pytest.raises(tp.StorageError):
        tp.Trajectory.open("no such run")
    assert all(issubclass(getattr(tp, name), tp.TwoPhaseError) for name in tp.__all__ if name.endswith("Error"))
