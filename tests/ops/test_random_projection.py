"""`random_projection`: known answers of its generator, the same signs from every backend, segments, refusals."""

import pytest
import torch

from tests.ops.helpers import EACH_TIER, force
from twophase_fast import ops
from twophase_fast._types import InputError
from twophase_fast.ops.random_projection import reference

FULL = 0xFFFFFFFF
PI = 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344
KNOWN = [
    # counter, key, words: the vectors published with Random123
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((FULL,) * 4, (FULL,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (PI, (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def signs(rows, directions, seed, offset, backend, dtype=torch.float32):
    """S itself, as the projection of the identity."""
    return ops.random_projection(torch.eye(rows, dtype=dtype), directions, seed=seed, offset=offset, backend=backend)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_generator_gives_its_published_answers(counter, key, words):
    got = reference.philox(*(torch.tensor([c]) for c in counter), key[0] + (key[1] << 32))
    assert tuple(int(word) for word in got) == words


@EACH_TIER
@pytest.mark.parametrize(("seed", "offset"), [(0, 0), (2**63 - 1, 2**32 - 5), (12345678901, 2**62)])
def test_every_backend_has_the_same_signs(tier, seed, offset, monkeypatch):
    backend = force(tier, monkeypatch)
    got = signs(17, 300, seed, offset, backend)
    expected = reference.signs(torch.arange(offset, offset + 17), 300, seed)
    assert torch.equal(got, expected.float())
    assert torch.equal(signs(17, 300, seed, offset, backend, torch.float64), expected.double())


def test_signs_are_plus_and_minus_one_without_bias_and_orthogonal_on_average():
    s = signs(400, 4096, 7, 0, None, torch.float64)
    assert torch.equal(s.abs(), torch.ones_like(s))
    gram = s @ s.T / 4096
    off = gram - torch.eye(400, dtype=torch.float64)
    assert abs(s.mean()) < 5 / (400 * 4096) ** 0.5
    assert off.abs().max() < 6 / 4096**0.5
    assert 0.9 < off.square().sum().item() * 4096 / (400 * 399) < 1.1


def test_signs_are_a_function_of_seed_row_and_column_alone():
    whole = signs(40, 260, 3, 100, None)
    assert torch.equal(signs(40, 130, 3, 100, None), whole[:, :130])
    assert torch.equal(signs(10, 260, 3, 120, None), whole[20:30])
    assert not torch.equal(signs(40, 260, 4, 100, None), whole)


@pytest.mark.parametrize("backend", ["reference", None])
def test_a_vector_may_be_projected_segment_by_segment(backend):
    x = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = ops.random_projection(x, 70, seed=1, offset=50, backend=backend)
    out = torch.zeros_like(whole)
    for start in range(0, 1000, 330):
        piece = x[:, start : start + 330]
        assert ops.random_projection_(out, piece, seed=1, offset=50 + start, backend=backend) is out
    torch.testing.assert_close(out, whole, rtol=1e-12, atol=1e-12)


def test_the_definition_in_small_blocks(monkeypatch):
    x = torch.randn(3, 100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = ops.random_projection(x, 40, seed=2, backend="reference")
    monkeypatch.setattr(reference, "BLOCK_ELEMENTS", 1)
    torch.testing.assert_close(ops.random_projection(x, 40, seed=2, backend="reference"), whole)


X = torch.zeros(2, 5)
BAD = [
    ({"x": X[0]}, "x has shape"),
    ({"x": X.long()}, "x has dtype"),
    ({"directions": 0}, "directions=0 must be a whole number from 1"),
    ({"directions": 2.0}, "directions=2.0"),
    ({"seed": -1}, "seed=-1"),
    ({"seed": 2**63}, "seed=9223372036854775808"),
    ({"offset": 2**63 - 5}, "offset="),
    ({"offset": True}, "offset=True"),
    ({"precision": "fast"}, "precision='fast'"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=str)
def test_bad_input_is_refused_by_name(change, message):
    with pytest.raises(InputError, match=message):
        ops.random_projection(**{"x": X, "directions": 3, "seed": 0, **change})


def test_a_bad_accumulator_is_refused():
    for out in (torch.zeros(3, 4), torch.zeros(2), torch.zeros(2, 4).double(), torch.zeros(2, 1).expand(2, 4)):
        with pytest.raises(InputError, match="out"):
            ops.random_projection_(out, X, seed=0)
