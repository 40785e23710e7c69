"""What is refused, and whether the message names the culprit."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import twophase_fast as tp
from twophase_fast._model_cases import Apply
from twophase_fast._types import InputError, UnsupportedModelError


def x(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net():
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


MODELS = {
    "train-mode BatchNorm": (
        nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train(),
        r"'1' \(BatchNorm1d\) is in training mode.*eval",
    ),
    "BatchNorm without statistics": (
        nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False)).eval(),
        "keeps no running statistics",
    ),
    "dropout module": (nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 2)).train(), r"'1' \(Dropout\)"),
    "dropout in a recurrent layer": (
        Apply(lambda s, x: s.r(x[:, None])[0][:, -1], r=nn.LSTM(5, 4, 2, dropout=0.5, batch_first=True)).train(),
        "'r'.*dropout",
    ),
    "functional dropout": (Apply(lambda s, x: F.dropout(s.a(x), 0.5), a=nn.Linear(5, 2)).eval(), "random"),
    "noise": (Apply(lambda s, x: s.a(x + torch.randn_like(x)), a=nn.Linear(5, 2)).eval(), "random numbers"),
    "functional batch statistics": (
        Apply(lambda s, x: s.b(F.batch_norm(s.a(x), None, None, training=True)), a=nn.Linear(5, 4), b=nn.Linear(4, 2)),
        "coupled|mixes samples",
    ),
    "centred over the batch": (
        Apply(lambda s, x: s.b(s.a(x) - s.a(x).mean(0)), a=nn.Linear(5, 4), b=nn.Linear(4, 2)),
        "coupled|mixes samples",
    ),
    "inputs centred over the batch": (Apply(lambda s, x: s.a(x - x.mean(0)), a=nn.Linear(5, 4)), "coupled"),
    "softmax over the batch": (Apply(lambda s, x: s.a(x).softmax(0), a=nn.Linear(5, 4)), "coupled|mixes samples"),
    "no parameters": (nn.Tanh(), "no parameters"),
    "all frozen": (nn.Linear(5, 2).requires_grad_(False), "frozen"),
    "detached output": (Apply(lambda s, x: s.a(x).detach(), a=nn.Linear(5, 2)), "depends on no parameter"),
    "complex parameters": (
        Apply(lambda s, x: (x.to(torch.cfloat) @ s.w).abs(), w=nn.Parameter(torch.randn(5, 2, dtype=torch.cfloat))),
        "complex",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    model, message = MODELS[name]
    with pytest.raises(UnsupportedModelError, match=message):
        tp.entk(model, x(4, 5))


INPUTS = {
    "a list": ([1.0], "is a list"),
    "no samples": (torch.zeros(0, 5), "no samples"),
    "a scalar": (torch.tensor(1.0), "scalar"),
    "NaN": (torch.tensor([[0.0] * 5, [float("nan")] * 5]), "NaN or infinite.*sample 1"),
    "infinite": (torch.tensor([[0.0] * 5, [float("inf")] * 5]), "NaN or infinite.*sample 1"),
    "empty tuple": ((), "no Tensor"),
    "differing sizes": (
        (torch.zeros(3, 5), torch.zeros(4, 5)),
        "numbers of samples differ.*x1\\[0\\]: 3.*x1\\[1\\]: 4",
    ),
    "meta device": (torch.zeros(3, 5, device="meta"), "meta.*cpu"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name):
    given, message = INPUTS[name]
    with pytest.raises(InputError, match=message):
        tp.entk(net(), given)


OPTIONS = {
    "unknown output": ({"output": "matrix"}, "output='matrix'"),
    "unknown precision": ({"precision": "low"}, "precision='low'"),
    "tile of zero": ({"tile": 0}, "tile=0"),
    "targets2 without x2": ({"targets2": torch.zeros(4)}, "targets2"),
    "targets that nothing reads": ({"targets": torch.zeros(4)}, "no output_fn"),
    "targets without targets2": (
        {"x2": x(2, 5), "output_fn": lambda y, t: y, "targets": torch.zeros(4)},
        "targets was given without targets2",
    ),
    "targets2 without targets": (
        {"x2": x(2, 5), "output_fn": lambda y, t: y, "targets2": torch.zeros(2)},
        "targets2 was given without targets;",
    ),
    "verify without a number": ({"verify": True}, "verify=True; expected a number"),
    "parameters themselves": (
        {"params": list(net().parameters())},
        "params is a list with Parameter; expected None, a",
    ),
    "params of another kind": ({"params": 3}, "params is a int; expected None, a glob"),
    "one glob of two misspelt": ({"params": ["0.*", "encoder.*"]}, r"params='encoder\.\*' matches no.*2\.bias$"),
    "no globs": ({"params": []}, r"params=\[\] matches no parameter"),
    "no matching parameter": ({"params": "encoder.*"}, "matches no parameter.*0.weight"),
    "three-dimensional output": ({"output_fn": lambda y: y[:, :, None]}, r"\(2, 3, 1\) for 2 samples.*output_fn"),
    "output without sample axis": ({"output_fn": lambda y: y.sum(0)}, r"\(3,\) for 2 samples"),
    "output of another kind": ({"output_fn": lambda y: {"y": y}}, "returned a dict.*output_fn"),
    "integer output": ({"output_fn": lambda y: y.argmax(1)}, "int64"),
    "infinite output": ({"output_fn": lambda y: y / 0}, "output has NaN or infinite"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name):
    options, message = OPTIONS[name]
    with pytest.raises(InputError, match=message):
        tp.entk(net(), x(4, 5), **options)


def test_not_a_module():
    with pytest.raises(InputError, match="function"):
        tp.entk(lambda v: v, x(4, 5))


def test_autocast():
    with torch.autocast("cpu"), pytest.raises(InputError, match="autocast"):
        tp.entk(net(), x(4, 5))


def test_inference_mode():
    with torch.inference_mode(), pytest.raises(InputError, match="inference_mode"):
        tp.entk(net(), x(4, 5))
    with torch.no_grad():
        assert tp.entk(net(), x(4, 5)).shape == (4, 4, 3, 3)


@pytest.mark.parametrize(
    ("model", "message"),
    [(nn.LazyLinear(3), "'weight' is not initialised"), (nn.Linear(5, 3, device="meta"), "'weight' is on the meta")],
)
def test_parameters_without_values(model, message):
    with pytest.raises(InputError, match=message):
        tp.entk(model, x(4, 5))


def test_an_error_of_the_model_says_what_it_was_called_on():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        tp.entk(net(), x(5, 4))
    assert "called the model on 2 of the samples: x (2, 4) float32" in caught.value.__notes__[0]
    with pytest.raises(TypeError) as caught:
        tp.entk(net(), x(4, 5), output_fn=lambda y, t: y)
    assert "called output_fn without targets" in caught.value.__notes__[0]


@pytest.mark.parametrize("function", [tp.plan, tp.entk_estimate, tp.NTKOperator])
def test_the_others_refuse_targets_that_nothing_reads(function):
    with pytest.raises(InputError, match="no output_fn"):
        function(net(), x(4, 5), targets=torch.zeros(4))


def test_infinite_jacobian_is_named():
    model = Apply(lambda s, v: s.a(v).sqrt() + s.b(v), a=nn.Linear(5, 2, bias=False), b=nn.Linear(5, 2))
    zero = x(4, 5)
    zero[2] = 0
    with torch.no_grad():
        model.a.weight.abs_()
    with pytest.raises(UnsupportedModelError, match=r"'a\.weight'.*NaN or infinite"):
        tp.entk(model, zero.abs())


def test_outputs_of_both_sides_must_agree():
    def run(s, v):
        return s.a(v)[:, : v.shape[1]]

    model = Apply(lambda s, v: s.e(v).sum(2), e=nn.Embedding(5, 3))
    with pytest.raises(InputError, match="x1 gives 4 outputs and x2 gives 2"):
        tp.entk(model, torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, 2, dtype=torch.long))


def test_parameters_without_a_use():
    model = Apply(lambda s, x: s.a(x), a=nn.Linear(5, 2), b=nn.Linear(5, 2))
    with pytest.raises(UnsupportedModelError, match="none of the selected parameters"):
        tp.entk(model, x(3, 5), params="b.weight")


def test_activations_written_over():
    held = torch.zeros(8, 16, 2, 2)

    def forward(s, x):
        held[: len(x)].copy_(x)
        return s.b(s.a(held[: len(x)]).relu().flatten(1))

    model = Apply(forward, a=nn.Conv2d(16, 64, 2), b=nn.Linear(64, 3))
    one, other = x(4, 16, 2, 2), x(3, 16, 2, 2, seed=1)
    torch.testing.assert_close(tp.entk(model, one), tp.ntk.naive_entk(model, one), rtol=1e-4, atol=1e-4)
    with pytest.raises(UnsupportedModelError, match="writes the activations of later samples over"):
        tp.entk(model, one, other)


def test_a_float32_part_of_a_float64_model_may_round_as_float32_does():
    """Another batch size may sum in another order; as large a difference in float64 would mean coupled samples."""

    def run(s, x):
        rounds = 1 + 1e-6 * (x.shape[0] == 2)
        return s.b((s.a(x.to(s.a.weight.dtype)) * rounds).double())

    def model(dtype):
        return Apply(run, a=nn.Linear(5, 4).to(dtype), b=nn.Linear(4, 3).double())

    assert tp.entk(model(torch.float32), x(6, 5).double(), params="b.*").shape == (6, 6, 3, 3)
    with pytest.raises(UnsupportedModelError, match="other outputs in another batch"):
        tp.entk(model(torch.float64), x(6, 5).double())
