"""Precision "high" in C++: operands split into bfloat16 parts, multiplied by AMX or by its emulation.

The emulated unit runs everywhere: packing, blocking, tails and sums are those of the real one, and so are the bits.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from twophase_fast import _native, ops
from twophase_fast.ops import _cpu
from twophase_fast.ops._case import ODD_SIZES
from twophase_fast.ops._cases import OP_CASES
from twophase_fast.ops._precision import precision_that_runs
from twophase_fast.ops.factored_gram import config
from twophase_fast.ops.factored_gram import cpu as factored_cpu

pytestmark = pytest.mark.skipif(_native.missing() is not None, reason="no C++ extension")

ROOT = Path(__file__).parents[2]
BOUND = 1e-5
SPLIT = {"gram", "gram_", "grouped_gram_", "factored_gram", "factored_gram_"}
CASES = pytest.mark.parametrize("case", [case for case in OP_CASES if case.name in SPLIT], ids=str)
UNITS = pytest.mark.parametrize("unit", _native.available_matrix_units())
HAS_AMX = "amx" in _native.available_matrix_units()


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def emulated(monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", "amx-emulated")


def error(got, exact):
    return float((got.double() - exact).norm() / exact.norm())


def split_gram_(out, x, y=None, weights=None, *, unit, threads=1, all_products=False):
    """Call the kernel itself, with a unit of choice, on batches of matrices."""
    others = [None if tensor is None else tensor.numpy() for tensor in (y, weights)]
    _native._C.split_gram_(out.numpy(), x.numpy(), *others, all_products, unit, threads)
    return out


def mapped(value, function):
    if isinstance(value, list):
        return [function(entry) for entry in value]
    return function(value) if isinstance(value, torch.Tensor) else value


def run_case(case, inputs, **changes):
    cloned = {name: mapped(value, torch.clone) for name, value in inputs.items()}
    return case.values(case.call(**{**cloned, **changes}))


@CASES
def test_every_size_of_the_table_keeps_the_bound(case, emulated):
    """Where a unit splits operands, errors are above those of float32: nothing else ran in its place."""
    worst = 0.0
    for sizes in case.sizes:
        inputs = case.inputs(sizes, torch.float32)
        wide = {name: mapped(value, torch.Tensor.double) for name, value in inputs.items()}
        (got,) = run_case(case, inputs, precision="high", backend="cpu")
        (exact,) = run_case(case, wide, backend="reference")
        assert got.shape == exact.shape
        if exact.norm() > 0:
            assert error(got, exact) <= BOUND, sizes
            worst = max(worst, error(got, exact))
    assert worst > 1e-6


def layouts(tensor):
    """The same values: contiguous, with the axes in memory the other way round, and spread out."""
    axes = list(range(tensor.ndim))[::-1]
    room = torch.full([2 * size + 1 for size in tensor.shape], torch.nan)
    spread = room[tuple(slice(1, None, 2) for _ in tensor.shape)].copy_(tensor)
    return tensor, tensor.permute(axes).contiguous().permute(axes), spread


SHAPES = [(1, size, 0, 33) for size in ODD_SIZES] + [(1, 7, size, 19) for size in ODD_SIZES]
SHAPES += [(1, 18, 17, size) for size in ODD_SIZES] + [(3, 17, 0, 65), (2, 40, 70, 300), (1, 130, 0, 530)]


@UNITS
def test_units_and_layouts_and_threads_agree_to_the_bit(unit):
    for batch, n, m, k in SHAPES:
        x, y = random(batch, n, k), random(batch, m, k, seed=1) if m else None
        start = random(batch, n, m or n, seed=2)
        wanted = split_gram_(start.clone(), x, y, unit="amx-emulated")
        for i, out in enumerate(layouts(start)):
            rights = [None] * 3 if y is None else layouts(y)
            got = split_gram_(out.clone(), layouts(x)[i], rights[i], unit=unit, threads=i + 1)
            upper = (lambda t: t.triu()) if y is None else (lambda t: t)
            assert torch.equal(upper(got), upper(wanted)), (batch, n, m, k, i)


@UNITS
def test_a_tile_is_summed_as_documented(unit):
    """32 terms: the even and the odd ones in turn, rounded each time, then both sums, then the accumulator.

    Terms are bfloat16, so that all other products of parts are zero, and of very different sizes.
    """
    sizes = 2.0 ** torch.randint(-9, 10, (1, 20, 96), generator=torch.Generator().manual_seed(5))
    x = (random(1, 20, 96) * sizes).bfloat16().float()
    products = x[0, 0].double() * x[0].double()
    expected = torch.zeros(20, dtype=torch.float64)
    for step in products.split(32, dim=1):
        even, odd = torch.zeros(20, dtype=torch.float64), torch.zeros(20, dtype=torch.float64)
        for pair in step.split(2, dim=1):
            even, odd = (even + pair[:, 0]).float().double(), (odd + pair[:, 1]).float().double()
        expected = (expected + (even + odd).float().double()).float().double()
    got = split_gram_(torch.zeros(1, 1, 20), x[:, :1], x, unit=unit)[0, 0]
    assert torch.equal(got, expected.float())
    assert not torch.equal(got, products.sum(1).float())


def test_cutting_the_result_changes_no_bit(emulated):
    x, y = random(70, 600), random(90, 600, seed=1)
    whole, tiled = ops.gram_(torch.zeros(70, 90), x, y, precision="high"), torch.zeros(70, 90)
    for rows in (slice(0, 37), slice(37, 70)):
        for columns in (slice(0, 1), slice(1, 90)):
            ops.gram_(tiled[rows, columns], x[rows], y[columns], precision="high")
    assert torch.equal(whole, tiled)
    symmetric = ops.gram(x, precision="high")
    assert torch.equal(symmetric, symmetric.mT)
    assert torch.equal(symmetric.triu(), ops.gram(x, x.clone(), precision="high").triu())


@UNITS
def test_a_fourth_product_brings_accuracy(unit):
    x = random(1, 50, 1000)
    exact = (x.double() @ x.double().mT).triu()
    three, four = (split_gram_(torch.zeros(1, 50, 50), x, unit=unit, all_products=every) for every in (False, True))
    assert error(four.triu(), exact) < 1e-6 < error(three.triu(), exact)


def test_rounds_of_long_operands():
    """16 MiB of packed panels hold 5 panels of 3,000 rows on one side; k needs 6, so there are two rounds."""
    x, y = random(1, 3000, 1500), random(1, 3, 1500, seed=1)
    out = split_gram_(torch.zeros(1, 3000, 3), x, y, unit="amx-emulated", threads=2)
    first = split_gram_(torch.zeros(1, 16, 3), x[:, :16], y, unit="amx-emulated")
    assert torch.equal(out[:, :16], first)
    assert error(out, x.double() @ y.double().mT) < BOUND
    x[0, 5, 1400] = torch.inf  # in the second round, which is then computed in float32
    mixed = split_gram_(torch.zeros(1, 3000, 3), x, y, unit="amx-emulated", threads=2)
    assert torch.equal(mixed.isinf(), (x @ y.mT).isinf())
    rest = torch.arange(3000) != 5
    start = split_gram_(torch.zeros(1, 3000, 3), x[..., :1280], y[..., :1280], unit="amx-emulated")
    expected = ops.gram_(start, x[..., 1280:], y[..., 1280:])
    assert torch.equal(mixed[:, rest], expected[:, rest])


@pytest.mark.parametrize("repeats", [(1, 1), (3, 1), (1, 5), (3, 5)])
@UNITS
def test_weights_scale_what_is_added(unit, repeats):
    x, y, start = random(2, 36, 50), random(2, 40, 50, seed=1), random(2, 36, 40, seed=2)
    weights = random(36 // repeats[0], 40 // repeats[1], seed=3)
    wide = weights.repeat_interleave(repeats[0], 0).repeat_interleave(repeats[1], 1).double()
    exact = start + wide * (x.double() @ y.double().mT)
    for layout in layouts(weights):
        assert error(split_gram_(start.clone(), x, y, layout, unit=unit), exact) < BOUND
    sizes = [torch.full_like(x, 2.0**70), torch.full_like(y, 2.0**70)]
    got = split_gram_(start.clone(), *sizes, weights, unit=unit)
    assert torch.equal(got.isinf(), torch.ones_like(got, dtype=torch.bool))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 3.4e38])
def test_infinite_terms_give_what_float32_gives(emulated, value):
    """In parts, inf * y would be inf * high + inf * low: NaN wherever the low part is zero or of the other sign."""
    x, y = random(20, 600), random(9, 600, seed=1)
    x[4, 7], y[:3, 7] = value, torch.tensor([1.0, 0.0, -3.0])
    expected = ops.gram(x, y)
    got = ops.gram(x, y, precision="high")
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.nan_to_num(0.0)[4], expected.nan_to_num(0.0)[4])
    rest = [row for row in range(20) if row != 4]
    assert error(got[rest], (x.double() @ y.double().T)[rest]) < BOUND


def test_signed_zeros_and_exact_terms(emulated):
    x = torch.tensor([[-0.0, 3.0, 0.5], [0.0, -2.0, 4.0]])
    assert torch.equal(ops.gram(x, precision="high"), x @ x.T)
    out = ops.gram_(torch.full((2, 2), -0.0), torch.zeros(2, 3), torch.zeros(2, 3), precision="high")
    assert torch.equal(out, torch.zeros(2, 2))
    assert not out.signbit().any()


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e-12, 1e-6, 1e6, 1e12, 1e18])
def test_the_bound_holds_at_every_scale(emulated, scale):
    """Products from 1e-36 to 1e36; where low parts would be flushed to zero, float32 takes over."""
    x, y = scale * random(20, 300), random(17, 300, seed=1)
    partner = y if scale < 1e-20 else scale * y
    assert error(ops.gram(x, partner, precision="high"), x.double() @ partner.double().T) < BOUND


def test_subnormal_terms_count_as_zero_beside_large_ones(emulated):
    x = random(5, 40)
    x[:, 3] = 1e-39
    expected = x.clone()
    expected[:, 3] = 0
    assert torch.equal(ops.gram(x, precision="high"), ops.gram(expected, precision="high"))


def test_half_precision_operands_lose_nothing(emulated):
    x = random(20, 40).bfloat16()
    assert error(ops.gram(x, precision="high"), x.double() @ x.double().T) < 1e-6


def test_float64_stays_float64(emulated):
    x = random(5, 40).double()
    assert torch.equal(ops.gram(x, precision="high"), ops.gram(x))


def test_medium_runs_as_high(emulated):
    x = random(20, 40)
    assert torch.equal(ops.gram(x, precision="medium"), ops.gram(x, precision="high"))
    assert not torch.equal(ops.gram(x, precision="high"), ops.gram(x))


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_without_a_matrix_unit_high_is_highest(monkeypatch, isa):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    x = random(20, 40)
    assert _native.matrix_unit() is None
    assert not _cpu.splits("high", x)
    assert torch.equal(ops.gram(x, precision="high"), ops.gram(x))
    assert precision_that_runs("high", x) == "highest"


def test_the_precision_that_runs(emulated, monkeypatch):
    x = torch.empty(3)
    ran = [precision_that_runs(wanted, x) for wanted in ("highest", "high", "medium")]
    assert ran == ["highest", "high", "high"]
    assert precision_that_runs("high", x.double()) == "highest"
    monkeypatch.setenv("TWOPHASE_BACKEND", "reference")
    assert precision_that_runs("high", x) == "highest"


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_one_position_accumulates_in_every_layout(emulated, output, symmetric):
    a, g = random(11, 1, 40), random(11, 3, 1, 21, seed=1)
    second = () if symmetric else (random(5, 1, 40, seed=2), random(5, 3, 1, 21, seed=3))
    exact = ops.factored_gram(*(t.double() for t in (a, g, *second)), output=output, backend="reference")
    start = random(*exact.shape, seed=4)
    for out in layouts(start):
        got = ops.factored_gram_(out.clone(), a, g, *second, output=output, precision="high")
        difference = (got - start).double() - exact
        if symmetric:  # samples n <= m; within n = m the classes c <= c'
            keep = torch.ones(11, 11, dtype=torch.bool).triu(1 if output == "full" else 0)
            difference = difference[keep]
        assert difference.norm() < BOUND * exact.norm()


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_positions_in_every_block_and_layout(emulated, output, symmetric):
    """Blocks of several samples, chunks of one, groups of samples that do not fit the workspace."""
    for n, t, c, d, p in ((1, 1, 1, 1, 1), (7, 3, 2, 33, 5), (3, 300, 1, 9, 20), (21, 17, 2, 270, 20)):
        a, g = random(n, t, d), random(n, c, t, p, seed=1)
        second = (None, None) if symmetric else (random(4, t + 5, d, seed=2), random(4, c, t + 5, p, seed=3))
        wide = [None if operand is None else operand.double() for operand in (a, g, *second)]
        exact = ops.factored_gram(*wide, output=output, backend="reference")
        keep = torch.ones(exact.shape[:2], dtype=torch.bool)
        keep = keep.triu(1 if output == "full" and n > 1 else 0) if symmetric else keep
        results = []
        for blocks in (config.Blocks(), config.Blocks(workspace=1)):
            for i in range(3):
                out = layouts(torch.zeros_like(exact, dtype=torch.float32))[i].clone()
                operands = [None if operand is None else layouts(operand)[i] for operand in (a, g, *second)]
                factored_cpu.run(out, *operands, output, "split", blocks, "high")
                assert error(out[keep], exact[keep]) < BOUND
                assert n == 1 or error(out[keep], exact[keep]) > 1e-6
                results.append(out[keep])
        assert all(torch.equal(result, results[0]) for result in results)


@UNITS
def test_units_and_threads_agree_to_the_bit_on_positions(unit):
    a, g = random(9, 40, 70), random(9, 3, 40, 33, seed=1)
    results = []
    for name, threads in (("amx-emulated", 1), (unit, 1), (unit, 2)):
        out = torch.zeros(9, 9, 3, 3)
        arrays = (tensor.numpy() for tensor in (out, a, g))
        _native._C.split_factored_gram_(*arrays, None, None, "full", config.Blocks().as_list(), name, threads)
        results.append(out[torch.ones(9, 9, dtype=torch.bool).triu(1)])
    assert all(torch.equal(result, results[0]) for result in results)


def test_infinite_factors_give_what_float32_gives(emulated):
    """In the groups of samples that hold them; workspace=1 makes a group of every block."""
    a, g = random(40, 9, 20), random(40, 2, 9, 30, seed=1)
    g[3, 1, 4, 2], a[30, 2, 7] = torch.inf, torch.nan
    for workspace in (1, 1 << 22):
        results = []
        for method in ("split", "tiles"):
            results.append(torch.zeros(40, 40, 2, 2))
            factored_cpu.run(results[-1], a, g, None, None, "full", method, config.Blocks(workspace=workspace), "high")
        split, tiles = (result[torch.ones(40, 40, dtype=torch.bool).triu(1)] for result in results)
        assert torch.equal(split.isnan(), tiles.isnan())
        finite = tiles.isfinite()
        assert torch.equal(split[~finite].nan_to_num(0.5), tiles[~finite].nan_to_num(0.5))
        assert error(split[finite], tiles[finite].double()) < BOUND


def test_the_method_with_a_matrix_unit_follows_the_cost():
    def sizes(t, c):
        return config.Sizes(64, 64, t, t, c, c, 576, 64)

    chosen = {(t, c): config.method(sizes(t, c), "full", split=True) for t in (1, 4, 64) for c in (1, 10)}
    assert chosen[1, 1] == chosen[1, 10] == "single"
    assert chosen[4, 1] == "split"
    assert chosen[64, 1] == chosen[64, 10] == "materialised"
    assert config.method(sizes(1, 10), "trace", split=True) == "single"


def test_threads_do_not_change_a_bit(emulated):
    before = torch.get_num_threads()
    x, a, g = random(150, 700), random(20, 1, 90), random(20, 4, 1, 70, seed=1)
    runs = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append((ops.gram(x, precision="high"), ops.factored_gram(a, g, precision="high")))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(ours, first) for run in runs for ours, first in zip(run, runs[0], strict=True))


FORKED = """
import os, torch
from twophase_fast import ops
x = torch.randn(100, 300, generator=torch.Generator().manual_seed(0))
torch.set_num_threads(2)
before = ops.gram(x, precision="high")
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(ops.gram(x, precision="high"), before) else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize(
    "isa", ["amx-emulated", pytest.param("amx", marks=pytest.mark.skipif(not HAS_AMX, reason="no AMX"))]
)
def test_a_forked_child_gets_the_same_bits(isa):
    environment = {**os.environ, "TWOPHASE_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", FORKED], env=environment, cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not HAS_AMX, reason=f"{platform.processor() or 'this processor'} or its system has no AMX tiles")
def test_amx_is_chosen_and_splits(monkeypatch):
    monkeypatch.delenv("TWOPHASE_ISA", raising=False)
    x = random(300, 1000)
    assert _native.matrix_unit() == "amx"
    got = ops.gram(x, precision="high")
    assert 1e-8 < error(got, x.double() @ x.double().T) < BOUND
    monkeypatch.setenv("TWOPHASE_ISA", "amx-emulated")
    assert torch.equal(ops.gram(x, precision="high"), got)


def test_an_unknown_unit_is_refused():
    x = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="matrix unit 'tpu' is unknown or not available"):
        split_gram_(torch.zeros(1, 2, 2), x, unit="tpu")
    with pytest.raises(ValueError, match="the weights do not divide out"):
        split_gram_(torch.zeros(1, 2, 2), x, weights=torch.zeros(3, 1), unit="amx-emulated")
