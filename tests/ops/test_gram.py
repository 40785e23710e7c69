"""What is particular to gram, gram_ and symmetrize_; their common properties are in test_op_properties.py."""

import pytest
import torch

from twophase_fast import ops
from twophase_fast._types import InputError


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("shape", [(5, 7), (300, 40), (3, 33, 9000)])
def test_symmetric_result_is_exactly_symmetric(shape, backend):
    product = ops.gram(random(*shape, dtype=torch.float32), backend=backend)
    assert torch.equal(product, product.mT)


def test_symmetric_upper_triangle_has_the_bits_of_the_cross_product():
    x = random(150, 700, dtype=torch.float32)
    assert torch.equal(ops.gram(x).triu(), ops.gram(x, x.clone()).triu())


def test_tiles_do_not_change_a_bit():
    x, y = random(130, 900, dtype=torch.float32), random(110, 900, dtype=torch.float32, seed=1)
    whole = ops.gram_(torch.zeros(130, 110), x, y)
    tiled = torch.zeros(130, 110)
    for rows in (slice(0, 37), slice(37, 130)):
        for cols in (slice(0, 1), slice(1, 110)):
            ops.gram_(tiled[rows, cols], x[rows], y[cols])
    assert torch.equal(whole, tiled)


def test_accumulates_panel_by_panel():
    x = random(21, 90)
    out = torch.zeros(21, 21, dtype=torch.float64)
    for panel in x.split(17, dim=1):
        assert ops.gram_(out, panel) is out
    torch.testing.assert_close(ops.symmetrize_(out), x @ x.T, rtol=1e-13, atol=1e-13)


def test_writes_only_where_it_was_told():
    room = torch.full((12, 20), 7.0)
    ops.gram_(room[2:9, 3:18], random(7, 5, dtype=torch.float32), random(15, 5, dtype=torch.float32))
    room[2:9, 3:18] = 7.0
    assert torch.equal(room, torch.full((12, 20), 7.0))


@pytest.mark.parametrize("backend", [None, "reference"])
def test_empty_axes(backend):
    assert ops.gram(torch.zeros(0, 5), backend=backend).shape == (0, 0)
    assert ops.gram(torch.zeros(4, 5), torch.zeros(0, 5), backend=backend).shape == (4, 0)
    assert torch.equal(ops.gram(torch.zeros(3, 0), backend=backend), torch.zeros(3, 3))
    assert ops.gram(torch.zeros(0, 4, 5), backend=backend).shape == (0, 4, 4)
    assert ops.symmetrize_(torch.zeros(0, 0), backend=backend).shape == (0, 0)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_nan_and_infinity_stay_in_their_rows(backend):
    x = random(20, 30)
    x[4, 7], x[11, 2] = torch.nan, torch.inf
    product = ops.gram(x, backend=backend)
    clean = torch.ones(20, dtype=torch.bool)
    clean[[4, 11]] = False
    assert product[4].isnan().all()
    assert not product[11, clean].isfinite().any()
    assert product[clean][:, clean].isfinite().all()


@pytest.mark.parametrize("allowed", ["high", "medium"])
def test_reference_keeps_float32_whatever_the_session_allows(allowed, restore_matmul_precision):
    x = random(64, 512, dtype=torch.float32)
    expected = ops.gram(x, backend="reference")
    torch.set_float32_matmul_precision(allowed)
    assert torch.equal(ops.gram(x, backend="reference"), expected)
    assert torch.get_float32_matmul_precision() == allowed


def test_reference_keeps_float32_where_only_the_newer_switches_were_set(monkeypatch, restore_matmul_precision):
    switch, seen, plain = torch.backends.cuda.matmul, [], torch.Tensor.__matmul__
    if not hasattr(switch, "fp32_precision"):
        pytest.skip("this torch has no such switch")
    torch.set_float32_matmul_precision("highest")
    switch.fp32_precision = "tf32"

    def spy(x, y):
        seen.append(switch.fp32_precision)
        return plain(x, y)

    monkeypatch.setattr(torch.Tensor, "__matmul__", spy)
    ops.gram(random(4, 5, dtype=torch.float32), backend="reference")
    assert seen == ["ieee"]
    assert switch.fp32_precision == "tf32"


@pytest.fixture
def restore_matmul_precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


X = torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0]],), "x must be a torch.Tensor, got list"),
        (
            (torch.zeros(3, 4, dtype=torch.int64),),
            "x has dtype torch.int64; expected one of float32, ",
        ),
        ((torch.zeros(4),), r"x has shape \(4,\); expected \[N, P\]"),
        ((torch.zeros(3, 4).to_sparse(),), "call .to_dense"),
        ((X, torch.zeros(3, 4, dtype=torch.float64)), "y is torch.float64 but x is torch.float32"),
        ((X, torch.zeros(3, 5)), r"x has shape \(3, 4\) and y \(3, 5\)"),
        ((X, torch.zeros(1, 3, 4)), "as many axes as x"),
        ((torch.zeros(2, 3, 4), torch.zeros(3, 3, 4)), "differ in their rows only"),
        ((X, torch.zeros(3, 4, device="meta")), "y is on meta but x is on cpu"),
    ],
)
def test_gram_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        ops.gram(*arguments)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (torch.zeros(3, 4), r"out has shape \(3, 4\); expected \(3, 3\)"),
        (torch.zeros(3, 3, requires_grad=True), "out requires grad"),
        (torch.zeros(3, 1).expand(3, 3), "its elements share memory"),
        (torch.zeros(3, 3, dtype=torch.float64), "out is torch.float64 but a Gram block of torch.float32"),
    ],
)
def test_gram_in_place_refuses(out, message):
    before = out.detach().clone()
    with pytest.raises(InputError, match=message):
        ops.gram_(out, X)
    assert torch.equal(out, before)


def test_other_refusals():
    with pytest.raises(InputError, match="precision='fast' is unknown; use one of 'highest', 'high', 'medium'"):
        ops.gram(X, precision="fast")
    with pytest.raises(InputError, match="last two axes must be equal"):
        ops.symmetrize_(torch.zeros(3, 4))
