from __future__ import annotations

import json
import sys

import pytest
from click.testing import CliRunner

from twophase_fast.cli import main
from twophase_fast.ops import _contest

RIVALS = """
import torch

def gram(x, y=None):
    return x @ (x if y is None else y).T

def rounded(x):
    return gram(x.bfloat16()).float()

def fails(x):
    raise ZeroDivisionError("division by zero")

def greedy(x):
    result = gram(x)
    x.zero_()
    return result

def moments(xs, ys):
    import twophase_fast as tp
    return {**vars(tp.ops.pair_moments(xs, ys, backend="reference")), "more": 1}
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    (tmp_path / "rivals_of_test.py").write_text(RIVALS)
    (tmp_path / "broken_rival_of_test.py").write_text("raise ZeroDivisionError('1 / 0')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "rivals_of_test", raising=False)
    return lambda *arguments: CliRunner().invoke(main, ["bench", "--repeat", "2", *arguments])


def test_a_rival_is_checked_and_timed(bench):
    result = bench("--op", "gram", "--shape", "n=9, p=70", "--against", "rivals_of_test:gram", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["sizes"] == {"batch": 0, "n": 9, "m": 0, "p": 70}
    ours, theirs = found["results"]
    assert (ours["name"], theirs["name"]) == ("ours", "rivals_of_test:gram")
    assert all(0 <= side["error"] <= found["allowed_error"] < 1e-6 for side in (ours, theirs))
    assert found["theirs_over_ours"] == pytest.approx(theirs["seconds"] / ours["seconds"])


def test_the_table_says_who_and_how_wrong(bench):
    result = bench("--op", "gram", "--shape", "n=9,m=4,p=70", "--against", "rivals_of_test:gram")
    assert result.exit_code == 0, result.output
    assert "gram  batch=0 n=9 m=4 p=70  float32  precision highest" in result.stdout
    assert "rivals_of_test:gram takes" in result.stdout
    assert result.stdout.count("error ") == 3


@pytest.mark.parametrize("op", _contest.names())
def test_without_a_rival_the_reference_is_timed(bench, op):
    shapes = {"gram": "n=5,p=9", "embedding_gram": "n=3,c=2,t=4,v=5,p=3", "pair_moments": "p=50,runs=2"}
    shapes |= {"conv_input_grad": "n=3,d=5,p=3,side=5"}
    shapes |= {"batch_norm_grad": "n=3,c=2,k=4,t=5", "layer_norm_grad": "n=3,c=2,t=4,d=5"}
    linear = "n=3,c=2,t=4,d=5,p=3"
    conv = "n=3,c=2,d=5,p=3,side=5"
    shape = shapes.get(op, conv if "conv" in op else linear)
    result = bench("--op", op, "--shape", shape)
    assert result.exit_code == 0, result.output
    assert "reference takes" in result.stdout


def test_a_dict_of_moments_will_do(bench):
    result = bench("--op", "pair_moments", "--shape", "p=50", "--against", "rivals_of_test:moments")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--op", "gram", "--against", "rivals_of_test:rounded"], 1, "relative error 2."),
        (["--op", "gram", "--against", "rivals_of_test:fails"], 1, "raised ZeroDivisionError: division by zero"),
        (["--op", "gram", "--against", "rivals_of_test:greedy"], 1, "changed its inputs"),
        (["--op", "gram", "--against", "rivals_of_test:nobody"], 2, "names no function"),
        (["--op", "gram", "--against", "rivals_of_test"], 2, "expected module:function"),
        (["--op", "gram", "--against", "no_such_module:f"], 2, "cannot import 'no_such_module'"),
        (
            ["--op", "per_sample_grad", "--dtype", "bfloat16"],
            2,
            "per_sample_grad does not take bfloat16; use one of",
        ),
        (["--op", "grom"], 2, "there is no op 'grom' to measure; use one of gram, "),
        (["--op", "gram", "--shape", "q=4"], 2, "cannot have the sizes q=4; it has, by default, batch=0, n=320"),
        (["--op", "gram", "--shape", "n=0"], 2, "cannot have the sizes n=0"),
        (["--op", "gram", "--shape", "q=4"], 2, "of which only batch and m may be 0"),
        (["--op", "gram", "--shape", "n=4,n=5"], 2, "'n=4,n=5' gives a size twice"),
        (["--op", "gram", "--shape", "n=10000000,p=10000000"], 2, "torch cannot make inputs and truth of these sizes"),
        (["--op", "conv_input_grad", "--shape", "n=2,side=1,padding=0"], 2, "of these sizes: "),
        (["--op", "gram", "--against", "broken_rival_of_test:f"], 2, "cannot import 'broken_rival_of_test' (1 / 0)"),
        (["--op", "gram", "--shape", "n"], 2, "'n' is not of the form n=640,p=4096"),
    ],
)
def test_refusals_are_one_line(bench, arguments, code, words):
    shape = [] if "--shape" in arguments else ["--shape", "n=9,p=70"]
    result = bench(*arguments, *(shape if "gram" in arguments else []))
    assert result.exit_code == code
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not result.stdout


def test_debug_shows_where_a_rival_failed(bench):
    result = bench("--op", "gram", "--shape", "n=9,p=70", "--against", "rivals_of_test:fails", "--debug")
    assert isinstance(result.exception.__cause__, ZeroDivisionError)


def test_lower_precision_allows_what_it_promises(bench):
    rival = ["--op", "gram", "--shape", "n=9,p=70", "--against", "rivals_of_test:rounded"]
    assert bench(*rival, "--precision", "high").exit_code == 1
    result = bench(*rival, "--precision", "medium")
    assert ("at most 2.0e-03" in result.stderr) == (result.exit_code == 1)
