"""What every op with a Triton version has, interpreted, at the smallest sizes of its row in the table of ops."""

import pytest
import torch

from tests.ops.test_op_properties import mapped, read_only, same_bits, values
from tests.ops.triton.checks import assert_accurate
from twophase_fast.ops import _dispatch
from twophase_fast.ops._cases import OP_CASES

pytest.importorskip("triton")

CASES = [case for case in OP_CASES if "triton" in _dispatch.backends(case.name)]
EACH = pytest.mark.parametrize("case", CASES, ids=str)


def smallest(case) -> dict:
    """The set of sizes with the fewest elements, among those without an empty axis that the row has."""
    return min(case.sizes[:5], key=lambda sizes: sum(sizes.values()))


@EACH
def test_every_dtype_at_the_smallest_sizes(case, interpreted):
    for dtype in case.dtypes:
        assert_accurate(case, smallest(case), dtype)


@EACH
def test_same_dtype_and_shape_as_the_reference(case, interpreted):
    for dtype in case.dtypes:
        inputs = case.inputs(smallest(case), dtype)
        kinds = [
            [(value.dtype, value.shape, value.requires_grad) for value in values(case, inputs, backend)]
            for backend in ("triton", "reference")
        ]
        assert kinds[0] == kinds[1]


@EACH
def test_inputs_are_only_read(case, interpreted):
    inputs = case.inputs(smallest(case), torch.float32)
    locked = {name: mapped(value, torch.clone if name == "out" else read_only) for name, value in inputs.items()}
    got, expected = case.values(case.call(**locked, backend="triton")), values(case, inputs, "triton")
    assert all(same_bits(a, b) for a, b in zip(got, expected, strict=True))


@EACH
def test_opcheck(case, interpreted):
    pytest.importorskip("expecttest", reason="opcheck needs it")
    op = getattr(torch.ops.twophase_fast, case.name).default
    inputs = case.inputs(smallest(case), torch.float32)
    torch.library.opcheck(op, (*case.operands(mapped(inputs, torch.clone)), "triton"))
