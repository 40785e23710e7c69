"""Where Triton runs, Jacobians and slices of them wait for one launch; interpreted, against float64."""

import pytest
import torch
from torch import nn

import twophase_fast as tp
from twophase_fast.ntk import naive_entk
from twophase_fast.ntk.accumulate import Accumulator
from twophase_fast.ntk.cost import Sizes
from twophase_fast.rules.factors import Dense, Outer

pytest.importorskip("triton")

from twophase_fast.ops._triton.kernel import Kernel


@pytest.fixture
def launches(monkeypatch):
    """The kernels that were launched, by name."""
    names: list[str] = []
    run = Kernel.run

    def counted(self, *args, **options):
        names.append(self.__name__)
        return run(self, *args, **options)

    monkeypatch.setattr(Kernel, "run", counted)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("TWOPHASE_BACKEND", "triton")
    monkeypatch.setenv("TWOPHASE_AUTOTUNE", "0")
    return names


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def accumulator(output, rows, columns, slice_bytes=2**20):
    options = {"dtype": torch.float64, "device": torch.device("cpu"), "slice_bytes": slice_bytes}
    return Accumulator(output, rows, columns, 2, **options)


def factors(samples):
    """A bias, a scale and a weight, of two outputs."""
    jacobians = [Dense(random(samples, 2, size)) for size in (3, 8)]
    return [*jacobians, Outer(random(samples, 5, 4), random(samples, 2, 5, 6), torch.Size((6, 4)))]


def expected(output, left, right):
    total = sum(torch.einsum("ncp,mdp->nmcd", a.dense().flatten(2), b.dense().flatten(2)) for a, b in zip(left, right))
    diagonal = total.diagonal(dim1=2, dim2=3)
    return {"full": total, "trace": diagonal.sum(-1), "diagonal": diagonal}[output]


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
@pytest.mark.parametrize("cross", [False, True])
def test_the_sum_is_that_of_the_blocks(output, cross, launches):
    left, right = factors(4), factors(3) if cross else factors(4)
    adds = accumulator(output, 4, 3 if cross else None)
    for a, b in zip(left, right):
        adds.add(a, b if cross else None, "materialise")
    torch.testing.assert_close(adds.kernel(), expected(output, left, right))
    grams = [name for name in launches if name.endswith("gram_kernel")]
    apart = ["gram_kernel"] * 2  # a batch of matrices, narrow Jacobians joined
    assert grams == {"full": ["grouped_gram_kernel"] * 2, "trace": ["grouped_gram_kernel"], "diagonal": apart}[output]


def test_what_waits_is_bounded(launches):
    left = [Dense(random(4, 2, 8)) for _ in range(5)]  # 512 bytes each
    adds = accumulator("trace", 4, None, slice_bytes=1100)
    for factor in left:
        adds.add(factor, None, "materialise")
    torch.testing.assert_close(adds.kernel(), expected("trace", left, left))
    assert launches.count("grouped_gram_kernel") == 3


def test_slices_of_one_parameter_wait_together(launches):
    weight = Outer(random(4, 5, 4), random(4, 2, 5, 6), torch.Size((6, 4)))
    adds = accumulator("full", 4, None, slice_bytes=2 * 4 * 2 * 4 * 8)  # two of six outputs
    adds.add(weight, None, "materialise")
    assert launches.count("grouped_gram_kernel") == 2
    torch.testing.assert_close(adds.kernel(), expected("full", [weight], [weight]))
    assert launches.count("grouped_gram_kernel") == 3


def test_segments_without_wide_loads_are_launched_apart(launches):
    left = [Dense(random(4, 2, size)) for size in (3, 8, 16, 1)]
    adds = accumulator("full", 4, None)
    for factor in left:
        adds.add(factor, None, "materialise")
    torch.testing.assert_close(adds.kernel(), expected("full", left, left))
    assert launches.count("grouped_gram_kernel") == 2


class Sequence(nn.Module):
    """Two linear layers at every position, and their mean."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 8).double(), nn.Linear(8, 2).double()

    def forward(self, x):
        return self.b(self.a(x).tanh()).mean(1)


def network():
    torch.manual_seed(0)
    return Sequence()


@pytest.mark.parametrize("output", ["full", "trace"])
def test_a_whole_kernel_takes_one_launch(output, launches, monkeypatch):
    monkeypatch.setattr(Sizes, "choose", lambda self, *_: self.methods[0])  # materialise
    x = random(3, 4, 5)
    kernel = tp.entk(network(), x, output=output)
    naive = naive_entk(network(), x)
    truth = naive if output == "full" else naive.diagonal(dim1=2, dim2=3).sum(-1)
    assert float((kernel - truth).norm() / truth.norm()) < 1e-12
    grams = [name for name in launches if name.endswith("gram_kernel")]
    assert len(grams) <= 2, "one launch of segments with wide loads and one of those without"
    assert set(grams) == {"grouped_gram_kernel"}


def test_on_a_cpu_products_are_added_as_they_come(monkeypatch):
    from twophase_fast import ops

    monkeypatch.setattr(ops, "grouped_gram_", None)
    left = factors(4)
    adds = accumulator("full", 4, None)
    for factor in left:
        adds.add(factor, None, "materialise")
    torch.testing.assert_close(adds.kernel(), expected("full", left, left))
