"""pair_moments by its definition, one_minus_cos against exact arithmetic."""

from fractions import Fraction

import mpmath
import pytest
import torch

from twophase_fast import _native, ops
from twophase_fast._types import InputError

SHAPES = [(40, 30), (), (7,), (16, 3, 3, 3)]


def random(*shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def run(seed, dtype=torch.float64):
    return [random(*shape, seed=seed + 10 * index, dtype=dtype) for index, shape in enumerate(SHAPES)]


@pytest.fixture(params=["reference", *_native.available_isas()])
def backend(request, monkeypatch):
    """Each backend, the C++ one with each instruction set."""
    if request.param == "reference":
        return "reference"
    monkeypatch.setenv("TWOPHASE_ISA", request.param)
    return "cpu"


def test_fields_are_what_they_say(backend):
    x, y = random(1000, seed=0), random(1000, seed=1)
    y[:10] = x[:10]
    d = y - x
    m = ops.pair_moments(x, y, backend=backend)
    for field, expected in {
        "xy": (x * y).sum(),
        "xx": (x * x).sum(),
        "yy": (y * y).sum(),
        "dd": (d * d).sum(),
        "dx": (d * x).sum(),
        "ds": (d * (x + y)).sum(),
        "max_abs_d": d.abs().max(),
        "changed": torch.tensor(990.0, dtype=torch.float64),
    }.items():
        torch.testing.assert_close(getattr(m, field), expected[None], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_types_are_taken_exactly_as_stored(dtype, backend):
    x, y = run(0, dtype), run(5, dtype)
    narrow = ops.pair_moments(x, y, backend=backend)
    wide = ops.pair_moments([t.double() for t in x], [t.double() for t in y], backend=backend)
    assert torch.equal(narrow.dd, wide.dd)
    assert torch.equal(narrow.xy, wide.xy)


def test_every_bit_pattern_of_the_16_bit_types(backend):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        values = bits.view(dtype)
        values = values[values.isfinite()]
        m = ops.pair_moments(values, torch.zeros_like(values), backend=backend)
        assert m.max_abs_d.item() == torch.finfo(dtype).max
        assert m.changed.item() == values.count_nonzero()
        for chunk in values.split(97):
            square = ops.pair_moments(chunk, chunk, backend=backend).xx.item()
            assert square == pytest.approx(chunk.double().square().sum().item(), rel=1e-14)


def test_shapes_of_one_several_and_all_pairs(backend):
    runs = [run(seed) for seed in range(3)]
    one = ops.pair_moments(runs[0], runs[1], backend=backend)
    several = ops.pair_moments(runs, runs[1], backend=backend)
    every = ops.pair_moments(runs, backend=backend)
    assert one.xy.shape == (4,)
    assert several.xy.shape == (3, 4)
    assert every.xy.shape == (3, 3, 4)
    scale = several.xx + several.yy
    for field in ("xy", "xx", "yy", "dd", "dx", "ds", "max_abs_d", "changed"):
        found = getattr(several, field)
        assert ((found[0] - getattr(one, field)).abs() <= 1e-14 * scale[0]).all(), field
        assert ((getattr(every, field)[:, 1] - found).abs() <= 1e-14 * scale).all(), field
    torch.testing.assert_close(every.dx[2, 1], several.dx[2], rtol=1e-12, atol=1e-12)
    assert torch.equal(every.ds, -every.ds.transpose(0, 1))
    assert torch.equal(every.dd.diagonal(), torch.zeros(4, 3, dtype=torch.float64))


@pytest.mark.parametrize("ratio", [1e-6, 0.4, 1.9, 2.1, 1e6])
def test_several_runs_of_any_length_against_one(ratio, backend):
    """Errors are some roundings of the product of the norms, also where a run is much longer than the other vector."""
    y = random(500, seed=5)
    runs = [ratio * random(500, seed=seed) for seed in range(3)]
    got = ops.pair_moments([[x] for x in runs], [y], backend=backend)
    for index, x in enumerate(runs):
        d = y - x
        norms = [vector.norm() for vector in (x, y, d, x + y)]
        for field, left, right in (("xy", 0, 1), ("dx", 2, 0), ("ds", 2, 3)):
            exact = sum(
                Fraction(a) * Fraction(b) for a, b in zip(*((x, y, d, x + y)[i].tolist() for i in (left, right)))
            )
            error = abs(getattr(got, field)[index].item() - float(exact))
            assert error <= 2e-14 * norms[left] * norms[right], (field, index)


def test_infinite_entries_of_several_runs(backend):
    x, y = torch.ones(2, 40, dtype=torch.float64), torch.ones(40, dtype=torch.float64)
    x[0, 3], x[1, 4], y[7] = torch.inf, -torch.inf, 2
    got = ops.pair_moments([[run] for run in x], [y], backend=backend)
    assert got.xy.flatten().tolist() == [torch.inf, -torch.inf]
    assert got.xx.isinf().all()
    assert got.dx.flatten().tolist() == [-torch.inf, -torch.inf]
    assert got.changed.flatten().tolist() == [2, 2]


def test_total_is_the_concatenated_vector(backend):
    x, y = run(0), run(5)
    flat = ops.pair_moments(torch.cat([t.flatten() for t in x]), torch.cat([t.flatten() for t in y]), backend=backend)
    total = ops.pair_moments(x, y, backend=backend).total
    for field in ("xy", "xx", "yy", "dd", "dx", "ds", "max_abs_d", "changed"):
        torch.testing.assert_close(getattr(total, field), getattr(flat, field)[0], rtol=1e-12, atol=1e-12)


def test_nan_and_infinity_are_seen(backend):
    x = torch.ones(50)
    for position in (0, 20, 49):
        y = x.clone()
        y[position] = torch.nan
        m = ops.pair_moments([x, x], [y, x], backend=backend)
        assert m.max_abs_d.isnan().tolist() == [True, False]
        assert m.changed.tolist() == [1.0, 0.0]
        assert m.total.max_abs_d.isnan()
        y[position] = torch.inf
        assert ops.pair_moments(x, y, backend=backend).max_abs_d.item() == float("inf")


def test_nan_survives_chunks_and_groups(backend):
    x = torch.ones(200_000)
    y = x.clone()
    y[3] = torch.nan
    y[-1] = 5.0
    assert ops.pair_moments(x, y, backend=backend).max_abs_d.isnan()
    assert ops.pair_moments([[x], [y], [x]], x, backend=backend).max_abs_d.isnan().flatten().tolist() == [
        False,
        True,
        False,
    ]


def test_infinities_are_changes_whatever_they_meet(backend):
    """inf - inf is NaN, which counts as changed; so does a NaN."""
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, -0.0, 1.0])
    y = torch.tensor([torch.inf, -torch.inf, torch.nan, -0.0, 0.0, 1.0])
    for runs in ([[x]], [[x], [x]]):
        m = ops.pair_moments(runs, y, backend=backend)
        assert m.changed.flatten().tolist() == [3.0] * len(runs)
        assert m.max_abs_d.isnan().all()


def test_equal_dense_strides_are_read_in_memory_order():
    x = random(4, 8, 5, 5, seed=0).to(memory_format=torch.channels_last)
    y = random(4, 8, 5, 5, seed=1).to(memory_format=torch.channels_last)
    expected = ops.pair_moments(x.contiguous(), y.contiguous())
    mixed = ops.pair_moments(x, y.contiguous())
    for got in (ops.pair_moments(x, y), mixed):
        torch.testing.assert_close(got.xy, expected.xy, rtol=1e-13, atol=0)
        assert torch.equal(got.changed, expected.changed)


def test_empty_tensors_count_nothing(backend):
    m = ops.pair_moments([torch.zeros(0), torch.ones(3)], [torch.zeros(0), torch.zeros(3)], backend=backend)
    assert m.dd.tolist() == [0.0, 3.0]
    assert m.changed.tolist() == [0.0, 3.0]


def test_parameters_of_modules_are_taken_without_their_gradients():
    a, b = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    assert not ops.pair_moments(a.parameters(), b.parameters()).dd.requires_grad


@pytest.mark.parametrize(
    ("xs", "ys", "message"),
    [
        ([], [], "xs holds no tensors"),
        ([torch.zeros(3)], [torch.zeros(3), torch.zeros(2)], "ys has 2 tensors but xs has 1"),
        ([torch.zeros(3)], [torch.zeros(4)], r"ys\[0\] has shape \(4,\); expected \(3,\)"),
        ([torch.zeros(3)], [torch.zeros(3).double()], "convert one"),
        ([torch.zeros(3, dtype=torch.int32)], [torch.zeros(3)], r"xs\[0\] has dtype torch.int32"),
        ([torch.zeros(3)], None, "a list of runs"),
        ([[torch.zeros(3)], [torch.zeros(2)]], None, r"xs\[1\]\[0\] has shape"),
    ],
)
def test_pair_moments_refuses(xs, ys, message):
    with pytest.raises(InputError, match=message):
        ops.pair_moments(xs, ys)


def exact_one_minus_cos(a: torch.Tensor, b: torch.Tensor) -> mpmath.mpf:
    """1 - cos from exact inner products of the stored numbers, rooted with 80 digits."""
    xs, ys = ([Fraction(value) for value in vector.double().tolist()] for vector in (a, b))
    xy, xx, yy = sum(map(lambda x, y: x * y, xs, ys)), sum(x * x for x in xs), sum(y * y for y in ys)
    with mpmath.workdps(80):
        cos = _mpf(xy) / mpmath.sqrt(_mpf(xx) * _mpf(yy))
        return 1 - cos


def _mpf(value: Fraction) -> mpmath.mpf:
    return mpmath.mpf(value.numerator) / value.denominator


def relative_error(a, b, backend):
    exact = exact_one_minus_cos(a, b)
    with mpmath.workdps(80):
        return float(abs(mpmath.mpf(ops.one_minus_cos(a, b, backend=backend)) - exact) / exact)


@pytest.mark.parametrize("exponent", range(11))
def test_one_minus_cos_of_isotropic_differences(exponent, backend):
    a, noise = random(1500, seed=1), random(1500, seed=2)
    assert relative_error(a, a + 10.0**-exponent * noise, backend) < 1e-9


@pytest.mark.parametrize("exponent", range(11))
@pytest.mark.parametrize("growth", [1.001, 0.5, 3.0, 1e6, 1e-6])
def test_one_minus_cos_of_nearly_parallel_vectors(exponent, growth, backend):
    a, noise = random(1500, seed=3), random(1500, seed=4)
    assert relative_error(a, (a + 10.0**-exponent * noise) * growth, backend) < 1e-9


def test_one_minus_cos_of_decay_and_noise(backend):
    a, noise = random(1500, seed=5), random(1500, seed=6)
    assert relative_error(a, a * 1.001 + 1e-10 * noise, backend) < 1e-9
    assert relative_error(a, a * 0.999 + 1e-10 * noise, backend) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("exponent", range(9))
def test_one_minus_cos_of_parameters_as_stored(exponent, dtype, backend):
    a = random(1500, seed=7, dtype=dtype)
    b = (a.double() + 10.0**-exponent * random(1500, seed=8)).to(dtype)
    if torch.equal(a, b):  # the whole perturbation was rounded away
        b[3] = torch.nextafter(b[3].float(), torch.tensor(9.0)).to(dtype) if dtype == torch.float32 else 2 * b[3]
    assert relative_error(a, b, backend) < 1e-9


def test_one_minus_cos_of_obtuse_and_orthogonal_vectors(backend):
    a, b = random(1500, seed=9), random(1500, seed=10)
    assert relative_error(a, -a + 0.1 * b, backend) < 1e-12
    assert relative_error(a, b, backend) < 1e-12
    assert relative_error(a, -b, backend) < 1e-12


@pytest.mark.parametrize("wrong", [torch.nn.Linear(2, 3), torch.nn.Linear(2, 3).state_dict(), 3, None])
def test_what_holds_no_list_of_tensors_is_named(wrong):
    with pytest.raises(InputError, match=r"xs is a \w+; expected a tensor or a list of tensors: of a module pass"):
        ops.pair_moments(wrong, [torch.ones(2)])
    with pytest.raises(InputError, match=r"b is a \w+; expected"):
        ops.one_minus_cos(torch.ones(2), wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_minus_cos_of_identical_vectors_is_exactly_zero(dtype, backend):
    for size in (1, 3, 17, 1000, 100_000):
        a = random(size, seed=size, dtype=dtype)
        assert ops.one_minus_cos(a, a.clone(), backend=backend) == 0.0
        assert ops.one_minus_cos([a, a], [2 * a, 2 * a], backend=backend) == 0.0


def test_one_minus_cos_takes_lists_as_one_vector(backend):
    a, b = run(0), run(5)
    flat = [torch.cat([t.flatten() for t in side]) for side in (a, b)]
    assert ops.one_minus_cos(a, b, backend=backend) == pytest.approx(ops.one_minus_cos(*flat), rel=1e-13)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(3), torch.ones(3), "a is all zero"),
        (torch.ones(3), torch.zeros(3), "b is all zero"),
        (torch.ones(3), torch.tensor([1.0, float("nan"), 1.0]), "b holds NaN or infinity"),
        (torch.tensor([1.0, float("inf")]), torch.ones(2), "a has squared norm inf"),
        (torch.ones(3).double() * 1e-150, torch.ones(3).double(), "a has squared norm 3e-300"),
    ],
)
def test_one_minus_cos_refuses(a, b, message):
    with pytest.raises(InputError, match=message):
        ops.one_minus_cos(a, b)


def test_residual_op_passes_opcheck():
    pytest.importorskip("expecttest", reason="opcheck needs it")
    a, b = run(0), run(5)
    for backend in ("", "reference"):
        torch.library.opcheck(torch.ops.twophase_fast.residual_moments.default, (a, b, 1.5, backend))
