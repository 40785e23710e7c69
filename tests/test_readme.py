"""The README's Python runs as it stands."""

import re
from pathlib import Path

import torch
from torch.nn import functional as F

README = Path(__file__).parents[1] / "README.md"


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
