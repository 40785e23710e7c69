"""The self-check: right kernels pass, a single wrong entry is found and named."""

import numpy as np
import pytest
import torch

import twophase_fast as tp
from tests.ntk.helpers import mlp, x
from twophase_fast._model_cases import MODEL_CASES
from twophase_fast._types import TwoPhaseError
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import make_batch
from twophase_fast.ntk.parameters import select_parameters
from twophase_fast.ntk.verify import VerificationError, tolerance, verify_entries

OUTPUTS = ("full", "trace", "diagonal", "sum")


def _sides(model, x1, x2=None, output_fn=None, targets=None):
    function = Function(model, output_fn, select_parameters(model, None))
    left = make_batch(x1, targets, name="x1", device=function.device)
    return function, left, None if x2 is None else make_batch(x2, None, name="x2", device=function.device)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("cross", [False, True])
def test_right_kernels_pass(output, cross):
    model, x1, x2 = mlp(), x(4, 5), x(3, 5, seed=1) if cross else None
    kernel = tp.entk(model, x1, x2, output=output)
    assert verify_entries(*_sides(model, x1, x2), kernel, output, 30) < 1e-12


@pytest.mark.parametrize("name", ["resnet20", "gpt_tied", "lstm", "output_fn_and_targets", "frozen_and_unused"])
def test_right_kernels_of_models_pass(name):
    model, inputs, options = MODEL_CASES[name]()
    kernel = tp.entk(model, inputs, **options)
    sides = _sides(model, inputs, output_fn=options.get("output_fn"), targets=options.get("targets"))
    assert verify_entries(*sides, kernel, "full", 3) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("output", OUTPUTS)
def test_rounding_is_no_disagreement(dtype, output):
    model, x1 = mlp(dtype), x(4, 5).to(dtype)
    sides = _sides(model, x1)
    error = verify_entries(*sides, tp.entk(model, x1, output=output), output, 20)
    assert 0 < error < tolerance(sides[0])


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_wrong_entry_is_named(output):
    model, x1 = mlp(), x(4, 5)
    kernel = tp.entk(model, x1, output=output).clone()
    entry = (2, 1, 0, 2)[: kernel.dim()]
    kernel[entry] *= 1.001
    with pytest.raises(VerificationError, match=rf"entry \({', '.join(map(str, entry))}\) of the {output} kernel"):
        verify_entries(*_sides(model, x1), kernel, output, 600)


def test_the_message_gives_both_values():
    model, x1 = mlp(), x(4, 5)
    truth = tp.entk(model, x1, output="trace")
    with pytest.raises(TwoPhaseError) as caught:
        verify_entries(*_sides(model, x1), torch.full_like(truth, 123.5), "trace", 1)
    entry = tuple(int(i) for i in str(caught.value).split("(")[1].split(")")[0].split(","))
    assert "123.5" in str(caught.value)
    assert f"{float(truth[entry]):.10g}"[:10] in str(caught.value)
    assert "float64" in str(caught.value)


def test_a_forgotten_parameter_is_found():
    model, x1 = mlp(), x(4, 5)
    kernel = tp.entk(model, x1, params="*weight")
    with pytest.raises(VerificationError):
        verify_entries(*_sides(model, x1), kernel, "full", 5)


def test_not_a_number_is_found():
    model, x1 = mlp(), x(4, 5)
    with pytest.raises(VerificationError, match="nan"):
        verify_entries(*_sides(model, x1), torch.full((4, 4), float("nan")), "trace", 1)


def test_arrays_are_read_entry_by_entry():
    model, x1 = mlp(), x(4, 5)
    kernel = np.asarray(tp.entk(model, x1))
    assert verify_entries(*_sides(model, x1), kernel, "full", 5) < 1e-12


def test_entries_are_a_function_of_the_seed():
    class Recorder:
        shape = (50, 50)

        def __init__(self):
            self.seen = []

        def __getitem__(self, entry):
            self.seen.append(entry)
            return kernel[entry]

    model, x1 = mlp(), x(50, 5)
    kernel = tp.entk(model, x1, output="trace")
    seen = []
    for seed in (0, 0, 1):
        recorder = Recorder()
        verify_entries(*_sides(model, x1), recorder, "trace", 4, seed)
        seen.append(recorder.seen)
    assert seen[0] == seen[1] != seen[2]
    assert len(seen[0]) == 4


def test_precision_widens_the_tolerance():
    function = _sides(mlp(), x(2, 5))[0]
    assert tolerance(function) < 1e-7
    assert tolerance(function, "high") == 1e-4
    assert tolerance(function, "medium") == 1e-2
