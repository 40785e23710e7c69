"""`batched_product_`: strides, shared operands, what it writes, accuracy, refusals."""

import pytest
import torch

from tests.ops.helpers import EACH_ISA, EACH_TIER, force, randn
from twophase_fast import ops
from twophase_fast._types import InputError


@EACH_TIER
def test_pulls_cotangents_back_through_a_batched_product(tier, monkeypatch):
    backend = force(tier, monkeypatch)
    a, b = randn(0, 3, 2, 7, 5).requires_grad_(), randn(1, 3, 2, 5, 33).requires_grad_()
    g = randn(2, 3, 4, 2, 7, 33)
    product = a @ b
    left = ops.batched_product_(g.new_empty(3, 4, 2, 7, 5), g, b.detach().mT.unsqueeze(1), backend=backend)
    right = ops.batched_product_(g.new_empty(3, 4, 2, 5, 33), a.detach().mT.unsqueeze(1), g, backend=backend)
    for k in range(4):
        expected = torch.autograd.grad(product, [a, b], g[:, k], retain_graph=True)
        torch.testing.assert_close(left[:, k], expected[0])
        torch.testing.assert_close(right[:, k], expected[1])


@EACH_TIER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_writes_the_products_and_nothing_beside_them(dtype, tier, monkeypatch):
    backend = force(tier, monkeypatch)
    room = torch.full((2, 3, 2, 40, 60), torch.nan, dtype=dtype)
    out = room[:, :, :, 3:38, 5:55]
    left, right = randn(3, 2, 3, 2, 35, 20, dtype=dtype), randn(4, 2, 1, 2, 20, 50, dtype=dtype)
    assert ops.batched_product_(out, left, right, backend=backend) is out
    torch.testing.assert_close(out, left @ right)
    assert int(room.isnan().sum()) == room.numel() - out.numel()
    flipped = torch.full((2, 3, 50, 2, 35), torch.nan, dtype=dtype).permute(0, 1, 3, 4, 2)
    assert torch.equal(ops.batched_product_(flipped, left, right, backend=backend), out)


@EACH_ISA
def test_at_most_twice_as_wrong_as_torch(isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    left, right = randn(5, 2, 3, 2, 65, 700, dtype=torch.float32), randn(6, 2, 3, 2, 700, 40, dtype=torch.float32)
    exact = left.double() @ right.double()
    got = ops.batched_product_(left.new_empty(exact.shape), left, right, backend="cpu")
    ours, theirs = ((value.double() - exact).norm() for value in (got, left @ right))
    assert 0 < ours <= 2 * theirs


LEFT, RIGHT, OUT = torch.zeros(2, 3, 4, 5, 6), torch.zeros(2, 1, 4, 6, 7), torch.zeros(2, 3, 4, 5, 7)
BAD = [
    ({"left": LEFT[0]}, r"left has shape \(3, 4, 5, 6\); expected \[B, K, H, n, p\]"),
    ({"left": LEFT.int()}, r"left has dtype torch.int32"),
    ({"right": RIGHT.double()}, r"right is torch.float64"),
    ({"right": RIGHT[:1]}, r"left has 2 samples but right has 1"),
    ({"right": RIGHT[:, :, :2]}, r"left has 4 heads but right has 2"),
    ({"right": RIGHT[:, :, :, :2]}, r"left has 6 terms but right has 2"),
    ({"right": RIGHT.repeat(1, 2, 1, 1, 1)}, r"left has K=3 outputs but right has K=2"),
    ({"out": OUT[:, :1]}, r"out has shape"),
    ({"out": OUT[:, :1].expand(OUT.shape)}, r"out is expanded"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input_is_refused_by_name(change, message):
    with pytest.raises(InputError, match=message):
        ops.batched_product_(**{"out": OUT, "left": LEFT, "right": RIGHT, **change})
