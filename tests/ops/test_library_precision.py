"""Products that a GPU leaves to torch's libraries run in IEEE float32, whatever the session allows."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from twophase_fast.ops.batched_product import library as batched
from twophase_fast.ops.linear_input_grad import library as linear

PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm_, torch.ops.aten.bmm}


class Watch(TorchDispatchMode):
    """Notes the precision that products are computed in."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket in PRODUCTS:
            self.seen.append(torch.get_float32_matmul_precision())
        return func(*args, **(kwargs or {}))


@pytest.fixture
def tf32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def linear_calls():
    g, weight, out = torch.ones(2, 3, 4, 5), torch.ones(5, 6), torch.zeros(2, 3, 4, 6)
    for add in (False, True):
        for scale in (None, torch.ones(2, 4, 6)):
            linear.linear_input_grad_(out, g, weight, scale, add)


def batched_calls():
    each, shared, out = torch.ones(2, 3, 2, 4, 4), torch.ones(2, 1, 2, 4, 4), torch.zeros(2, 3, 2, 4, 4)
    for left, right in ((each, each), (each, shared), (shared, each)):
        batched.batched_product_(out, left, right)


@pytest.mark.parametrize(("calls", "products"), [(linear_calls, 4), (batched_calls, 3)])
def test_products_are_ieee_and_the_session_stays_as_it_was(calls, products, tf32):
    with Watch() as watch:
        calls()
    assert watch.seen == ["highest"] * products
    assert torch.get_float32_matmul_precision() == "medium"


def test_the_result_of_a_product_is_written_in_place():
    """A layer's cotangents are the largest thing there is: no copy, also where they are added."""
    g, weight, out = torch.ones(2, 3, 4, 5), torch.ones(5, 6), torch.zeros(2, 3, 4, 6)
    made = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            made.append(result)
            return result

    with Sizes():
        linear.linear_input_grad_(out, g, weight, torch.ones(2, 4, 6), False)
        linear.linear_input_grad_(out, g, weight, None, True)
    large = [tensor for tensor in made if isinstance(tensor, torch.Tensor) and tensor.numel() == out.numel()]
    assert large
    assert {tensor.untyped_storage().data_ptr() for tensor in large} == {out.untyped_storage().data_ptr()}
    assert torch.equal(out, torch.full_like(out, 10))
