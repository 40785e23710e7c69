"""`embedding_gram`: against the gradients of an embedding table, repeated and padding tokens, refusals."""

import pytest
import torch

from twophase_fast import ops
from twophase_fast._types import InputError

ROWS = 6


def operands(seed, n=4, t=5, c=2, p=3):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(ROWS, (n, t), generator=generator)
    return tokens, torch.randn(n, c, t, p, generator=generator, dtype=torch.float64)


def table_gradients(tokens, g, padding_idx):
    """The gradient of every sample and cotangent with respect to the table, by autograd, as [N, C, ROWS·p]."""
    table = torch.zeros(ROWS, g.shape[3], dtype=torch.float64, requires_grad=True)
    rows = []
    for sample, of_sample in zip(tokens, g):
        z = torch.nn.functional.embedding(sample, table, padding_idx=padding_idx)
        rows.append([torch.autograd.grad(z, table, v, retain_graph=True)[0].flatten() for v in of_sample])
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_equals_products_of_the_table_s_gradients(output, padding_idx):
    first, second = operands(0), operands(1, n=3, t=9)
    left, right = (table_gradients(*side, padding_idx) for side in (first, second))
    full = torch.einsum("nck,mek->nmce", left, right)
    diagonal = full.diagonal(dim1=2, dim2=3)
    exact = {"full": full, "trace": diagonal.sum(-1), "diagonal": diagonal}[output]
    got = ops.embedding_gram(*first, *second, output=output, padding_idx=padding_idx)
    torch.testing.assert_close(got, exact, rtol=1e-13, atol=1e-13)


def test_the_symmetric_block_is_exactly_symmetric_and_the_same():
    tokens, g = operands(2)
    block = ops.embedding_gram(tokens, g)
    assert torch.equal(block, block.permute(1, 0, 3, 2))
    torch.testing.assert_close(block, ops.embedding_gram(tokens, g, tokens, g), rtol=1e-13, atol=1e-13)


def test_no_equal_tokens_give_zero():
    tokens, g = operands(3)
    assert not ops.embedding_gram(tokens, g, tokens + ROWS, g).any()


def test_accumulates_in_place():
    tokens, g = operands(4)
    out = torch.ones(4, 4, 2, 2, dtype=torch.float64)
    assert ops.embedding_gram_(out, tokens.int(), g, tokens.int(), g) is out
    torch.testing.assert_close(out, 1 + ops.embedding_gram(tokens, g), rtol=1e-13, atol=1e-13)


BAD = [
    (lambda k, g: (k.float(), g), {}, r"tokens has dtype"),
    (lambda k, g: (k[0], g), {}, r"tokens has shape"),
    (lambda k, g: (k, g[:, :, :2]), {}, r"positions"),
    (lambda k, g: (k, g.long()), {}, r"g has dtype"),
    (lambda k, g: (k, g, None, g), {}, r"tokens2 is missing"),
    (lambda k, g: (k, g, k.int(), g), {}, r"tokens2 is torch.int32"),
    (lambda k, g: (k, g, k, g[..., :2]), {}, r"outputs"),
    (lambda k, g: (k, g), {"padding_idx": -1}, r"padding_idx=-1"),
    (lambda k, g: (k, g), {"output": "sum"}, r"output='sum'"),
    (lambda k, g: (k, g), {"precision": "fast"}, r"precision='fast'"),
]


@pytest.mark.parametrize(("make", "options", "message"), BAD)
def test_bad_input_is_refused_by_name(make, options, message):
    with pytest.raises(InputError, match=message):
        ops.embedding_gram(*make(*operands(5)), **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    tokens, g = operands(6)
    g = g.to(dtype)
    got = ops.embedding_gram(tokens, g)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), ops.embedding_gram(tokens, g.double()), rtol=1e-5, atol=1e-5)
