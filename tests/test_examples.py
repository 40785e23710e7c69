import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
LARGE = {"language_model", "sentence_encoder"}  # tests/test_large_examples.py
EXAMPLES = sorted(path for path in FOLDER.glob("*.py") if path.stem not in LARGE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "--quick"])  # the others read no arguments
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_there_are_examples():
    assert {"kernel_of_my_model", "tracker_in_my_loop"} <= {path.stem for path in EXAMPLES}
    assert all((FOLDER / f"{name}.py").exists() for name in LARGE)
