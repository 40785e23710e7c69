import pytest
import torch

from twophase_fast._types import InputError
from twophase_fast.training import BatchOrder, derive_seed, generator_for, seeded_rng

CPU = torch.device("cpu")


def test_seeds_are_a_function_of_their_parts_pinned_for_ever():
    assert derive_seed(0, 1, "order") == 5305612505841276476
    assert len({derive_seed(a, b, c) for a in range(10) for b in range(10) for c in ("x", "y")}) == 200
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_an_epoch_visits_every_sample_once_and_epochs_differ():
    order = BatchOrder(50, 8, seed=3)
    assert order.steps_per_epoch == 6
    epochs = [torch.cat([order.indices(6 * e + i) for i in range(6)]) for e in range(2)]
    assert all(len(e.unique()) == 48 for e in epochs)
    assert not torch.equal(*epochs)


def test_batches_do_not_depend_on_the_order_they_are_asked_for():
    first, again = BatchOrder(50, 8, seed=3), BatchOrder(50, 8, seed=3)
    forwards = {i: first.indices(i) for i in range(20)}
    assert all(torch.equal(forwards[i], again.indices(i)) for i in reversed(range(20)))
    assert not torch.equal(forwards[0], BatchOrder(50, 8, seed=4).indices(0))


@pytest.mark.parametrize("size", [0, 51])
def test_impossible_batches_are_refused(size):
    with pytest.raises(InputError, match=f"batch_size is {size}; it must lie between 1 and the 50"):
        BatchOrder(50, size, 0)


def test_the_seeded_block_decides_global_draws_and_leaves_no_trace():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded_rng(CPU, 7, 4, "step"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded_rng(CPU, 7, 4, "step"):
        assert torch.equal(torch.rand(3), inside)
    with seeded_rng(CPU, 7, 5, "step"):
        assert not torch.equal(torch.rand(3), inside)


def test_generators_are_independent_of_the_global_one():
    torch.manual_seed(1)
    first = torch.rand(2, generator=generator_for(1, "a"))
    torch.manual_seed(2)
    assert torch.equal(first, torch.rand(2, generator=generator_for(1, "a")))
