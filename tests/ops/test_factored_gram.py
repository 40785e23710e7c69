"""`factored_gram`: the definition against explicit Jacobians, every C++ method and block size, refusals."""

import pytest
import torch

from tests.ops.helpers import EACH_ISA, masked
from twophase_fast import _native, ops
from twophase_fast._types import BackendError, InputError
from twophase_fast.ops.factored_gram import config, cpu, reference

NEEDS_CPP = pytest.mark.skipif(_native.missing() is not None, reason="no C++ extension")
TINY = config.Blocks(rows=24, columns=8, depth=3, workspace=1, jacobian=1)


def operands(seed, n=5, t=3, c=2, d=7, p=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, t, d, generator=generator, dtype=dtype)
    return a, torch.randn(n, c, t, p, generator=generator, dtype=dtype)


def from_jacobians(a, g, a2, g2, output):
    """The same block from the per-sample gradients themselves."""
    left = torch.einsum("nctp,ntd->ncpd", g, a).flatten(2)
    right = torch.einsum("nctp,ntd->ncpd", g2, a2).flatten(2)
    full = torch.einsum("nck,mek->nmce", left, right)
    diagonal = full.diagonal(dim1=2, dim2=3) if output != "full" else None
    return {"full": full, "trace": None if diagonal is None else diagonal.sum(-1), "diagonal": diagonal}[output]


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_the_definition_equals_products_of_jacobians(output):
    first, second = operands(0), operands(1, n=4, t=6)
    got = ops.factored_gram(*first, *second, output=output, backend="reference")
    torch.testing.assert_close(got, from_jacobians(*first, *second, output), rtol=1e-13, atol=1e-13)
    got = ops.factored_gram(*first, output=output, backend="reference")
    torch.testing.assert_close(got, from_jacobians(*first, *first, output), rtol=1e-13, atol=1e-13)


def test_the_definition_in_small_blocks_of_samples(monkeypatch):
    first, second = operands(2), operands(3, n=9)
    whole = ops.factored_gram(*first, *second, backend="reference")
    monkeypatch.setattr(reference, "BLOCK_ELEMENTS", 1)
    torch.testing.assert_close(ops.factored_gram(*first, *second, backend="reference"), whole, rtol=1e-14, atol=1e-13)


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_the_symmetric_block_is_exactly_symmetric(output):
    a, g = operands(4, n=17, t=5, c=3, d=40, dtype=torch.float32)
    block = ops.factored_gram(a, g, output=output)
    mirrored = block.permute(1, 0, 3, 2) if output == "full" else block.transpose(0, 1)
    assert torch.equal(block, mirrored)


METHODS = [("tiles", o) for o in ("full", "trace", "diagonal")] + [("half", "full"), ("materialised", "full")]


@NEEDS_CPP
@EACH_ISA
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("blocks", [config.Blocks(), TINY], ids=["default", "tiny"])
@pytest.mark.parametrize(("method", "output"), METHODS, ids="-".join)
def test_every_method_with_every_block_size(method, output, blocks, symmetric, isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    for n, t, c, p in ((1, 1, 1, 1), (6, 3, 2, 4), (3, 70, 1, 9), (14, 5, 7, 33)):
        first = operands(n, n=n, t=t, c=c, p=p)
        second = None if symmetric else operands(n + 1, n=4, t=2 * t, c=c, p=p)
        check_method(first, second, method, output, blocks)


@NEEDS_CPP
@EACH_ISA
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("blocks", [config.Blocks(), TINY], ids=["default", "tiny"])
def test_pointwise_with_every_block_size(blocks, symmetric, isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    for n, c, p in ((1, 1, 1), (40, 1, 5), (7, 10, 33), (2, 130, 9)):
        first = operands(n, n=n, t=1, c=c, p=p)
        second = None if symmetric else operands(n + 1, n=3, t=1, c=c, p=p)
        check_method(first, second, "pointwise", "full", blocks)


@NEEDS_CPP
@EACH_ISA
def test_pointwise_does_not_depend_on_the_number_of_threads(isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    a, g = operands(5, n=37, t=1, c=10, p=300, dtype=torch.float32)
    blocks = []
    for threads in (1, 3, 17):  # blocks are smaller for 17
        monkeypatch.setattr(_native, "threads", lambda threads=threads: threads)
        blocks.append(ops.factored_gram(a, g, backend="cpu"))
    assert torch.equal(blocks[0], blocks[1])
    assert torch.equal(blocks[0], blocks[2])


MASKED = ((40, 7, 97), (30, 13, 131), (9, 50, 64), (17, 64, 70))  # samples, classes, outputs: enough to look for zeros


@NEEDS_CPP
@EACH_ISA
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("blocks", [config.Blocks(), TINY], ids=["default", "tiny"])
def test_pointwise_leaves_out_what_vanishes_for_all_outputs_of_a_sample(blocks, symmetric, isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    for n, c, p in MASKED:
        a, g = operands(n, n=n, t=1, c=c, p=p)
        second = None if symmetric else operands(n + 1, n=2 * n, t=1, c=c + 1, p=p)
        check_method((a, masked(g, c)), second, "pointwise", "full", blocks)


@NEEDS_CPP
@EACH_ISA
def test_zero_times_infinity_is_not_left_out(isa, monkeypatch):
    monkeypatch.setenv("TWOPHASE_ISA", isa)
    a, g = operands(1, n=40, t=1, c=7, p=97, dtype=torch.float32)
    g = masked(g, 1)
    other = g.clone()
    other[5, 3, 0, 8] = torch.inf
    block = ops.factored_gram(a, g, a, other, backend="cpu")
    exact = ops.factored_gram(a, g, a, other, backend="reference")
    assert torch.equal(block.isnan(), exact.isnan())
    assert block[:, 5, :, 3].isfinite().logical_not().all()


def check_method(first, second, method, output, blocks):
    """Compare one method with the definition, on accumulators of two layouts; the upper triangle only if symmetric."""
    exact = from_jacobians(*first, *(second or first), output)
    for out in (torch.zeros_like(exact), torch.zeros_like(exact.mT.contiguous()).mT):
        cpu.run(out, *first, *(second or (None, None)), output, method, blocks)
        difference = upper(out - exact) if second is None else out - exact
        assert difference.norm() <= 1e-13 * exact.norm()


def upper(block):
    """The entries (n,c) <= (m,c')."""
    n = block.shape[0]
    if block.ndim == 4:
        return block.permute(0, 2, 1, 3).reshape(n * block.shape[2], -1).triu()
    return block.reshape(n, n, -1).permute(2, 0, 1).triu()


@pytest.mark.parametrize("backend", ["reference", None])
def test_accumulates_over_layers_into_a_kernel_matrix(backend):
    n, c = 5, 2
    kernel = torch.full((n * c, n * c), 3.0, dtype=torch.float64)
    view = kernel.view(n, c, n, c).permute(0, 2, 1, 3)
    layers = [operands(5), operands(6, t=1, d=9, p=3), operands(7, t=8)]
    for a, g in layers:
        assert ops.factored_gram_(view, a, g, backend=backend) is view
    ops.symmetrize_(kernel)
    exact = 3 + sum(from_jacobians(a, g, a, g, "full") for a, g in layers)
    torch.testing.assert_close(view, exact, rtol=1e-12, atol=1e-12)


def test_the_method_follows_the_cost():
    def sizes(t, c):
        return config.Sizes(64, 64, t, t, c, c, 576, 64)

    assert config.method(sizes(1, 10), "full") == "pointwise"
    assert config.method(sizes(4, 10), "full") == "half"
    assert config.method(sizes(4, 10), "trace") == "tiles"
    assert config.method(sizes(64, 1), "full") == "materialised"


BAD = [
    (lambda a, g: (a[0], g), {}, r"a has shape"),
    (lambda a, g: (a, g[:, :, :2]), {}, r"positions"),
    (lambda a, g: (a, g[:3]), {}, r"samples"),
    (lambda a, g: (a, g.float()), {}, r"float32"),
    (lambda a, g: (a.long(), g.long()), {}, r"dtype"),
    (lambda a, g: (a, g, a), {}, r"g2 is missing"),
    (lambda a, g: (a, g, a[..., :3], g), {}, r"inputs"),
    (lambda a, g: (a, g, a, g[..., :3]), {}, r"outputs"),
    (lambda a, g: (a, g, a, g[:, :1]), {"output": "trace"}, r"C=2 and g2 has C=1"),
    (lambda a, g: (a, g), {"output": "sum"}, r"output='sum'"),
    (lambda a, g: (a, g), {"precision": "fast"}, r"precision='fast'"),
    (lambda a, g: (a.numpy(), g), {}, r"torch.Tensor"),
]


@pytest.mark.parametrize(("make", "options", "message"), BAD)
def test_bad_input_is_refused_by_name(make, options, message):
    with pytest.raises(InputError, match=message):
        ops.factored_gram(*make(*operands(8)), **options)


def test_a_bad_accumulator_is_refused():
    a, g = operands(9)
    good = torch.zeros(5, 5, 2, 2, dtype=torch.float64)
    for out in (good[:4], good.float(), good[:1].expand(5, 5, 2, 2), good.clone().requires_grad_()):
        with pytest.raises(InputError, match="out"):
            ops.factored_gram_(out, a, g)


def test_a_missing_backend_lists_every_reason():
    with pytest.raises(BackendError, match=r"triton: .*\n.*cpu: "):
        ops.factored_gram(*operands(10), backend="triton")


@NEEDS_CPP
def test_a_processor_without_vectors_takes_the_reference(monkeypatch):
    a, g = operands(11)
    monkeypatch.delenv("TWOPHASE_ISA", raising=False)
    monkeypatch.setattr(_native, "available_isas", lambda: ("scalar",))
    with pytest.raises(BackendError, match="cpu: this processor has only the scalar tier"):
        ops.factored_gram(a, g, backend="cpu")
    assert torch.equal(ops.factored_gram(a, g), ops.factored_gram(a, g, backend="reference"))
    monkeypatch.setenv("TWOPHASE_ISA", "scalar")
    assert ops.factored_gram(a, g, backend="cpu").shape == (5, 5, 2, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    a, g = operands(12, dtype=dtype)
    exact = ops.factored_gram(a.double(), g.double())
    out = torch.zeros(5, 5, 2, 2)
    assert ops.factored_gram_(out, a, g, a, g) is out
    for got in (ops.factored_gram(a, g), out):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"out is torch.bfloat16 but the sum of products of a"):
        ops.factored_gram_(out.bfloat16(), a, g)
