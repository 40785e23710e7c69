"""Memory of large arrays: pages of dropped arrays serve later ones, and go back when the computation ends."""

import pytest
import torch

from twophase_fast._pages import economical, give_back, resident_bytes, room

CPU = torch.device("cpu")
MIB = 2**20

pytestmark = pytest.mark.skipif(resident_bytes() is None, reason="the system does not tell how much is resident")


def array(mib):
    return room((mib, MIB // 4), torch.float32, CPU).fill_(1)


def growth(before):
    return (resident_bytes() - before) / MIB


@pytest.mark.parametrize("on", [False, True])
def test_pages_of_a_dropped_array_serve_the_next(on):
    with economical(on):
        first = array(32)
        place, part = first.data_ptr(), first[3]
        del first
        second = array(32)
        assert second.data_ptr() != place  # a view still reads it
        assert bool((part == 1).all())
        del part
        assert array(32).data_ptr() == place
        assert array(31).data_ptr() == place
        assert array(16).data_ptr() != place  # wasteful
        assert bool((second == 1).all())


def test_kept_pages_never_add_to_the_peak():
    before = resident_bytes()
    with economical(True):
        both = [array(40), array(40)]
        assert growth(before) > 70
        both.clear()
        other = array(64)  # neither fits
        assert 50 < growth(before) < 100
        assert bool((other == 1).all())


def test_kept_pages_return_between_stages_and_at_the_end():
    before = resident_bytes()
    with economical(True):
        array(64)
        assert growth(before) > 50
        give_back()
        assert growth(before) < 30
        outlives = array(64)
    assert growth(before) > 50
    assert bool((outlives == 1).all())
    del outlives
    assert growth(before) < 30


def test_without_economy_pages_stay_until_the_end():
    before = resident_bytes()
    with economical(False):
        array(64)
        give_back()
        assert growth(before) > 50
    assert growth(before) < 30
