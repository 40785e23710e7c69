"""Memory of large arrays: nothing overlaps, pages are used again within the bound, and go back when they should."""

import random
import threading

import pytest
import torch

from twophase_fast import _pages
from twophase_fast._pages import recycling, resident_bytes, room

CPU, MIB = torch.device("cpu"), 2**20


def array(mib, value):
    return room((int(mib * MIB / 4),), torch.float32, CPU).fill_(value)


@pytest.fixture(autouse=True)
def nothing_kept():
    """Without pages of earlier tests."""
    with recycling(0, lasting=False):
        pass


def test_arrays_that_live_at_once_do_not_overlap():
    numbers, alive = random.Random(0), {}
    with recycling(64 * MIB, lasting=False):
        for step in range(400):
            if len(alive) > 6 or (alive and numbers.random() < 0.4):
                value = numbers.choice(list(alive))
                assert bool((alive.pop(value) == value).all())
            else:
                alive[step] = array(numbers.choice([0.5, 1, 1.3, 2, 3.7, 8, 17]), step)
        for value, kept in alive.items():
            assert bool((kept == value).all())


def test_a_repeated_call_finds_the_pages_it_had():
    def call():
        with recycling(64 * MIB, lasting=True):
            first, second = array(9, 1), array(12, 2)
            places = [first.data_ptr(), second.data_ptr()]
            del first
            third = array(5, 3)
            return [*places, third.data_ptr()]

    places = call()
    assert places[2] == places[0], "the place of what was dropped"
    assert call() == places


def test_pages_above_the_bound_go_back_to_the_system():
    if resident_bytes() is None:
        pytest.skip("the system does not tell what is resident")
    with recycling(16 * MIB, lasting=False):
        before = resident_bytes()
        for _ in range(4):
            large = array(64, 1)
            del large
            small = array(4, 1)
        assert resident_bytes() - before < 24 * MIB
        assert bool((small == 1).all())


def test_nothing_is_kept_after_a_call_under_a_budget():
    if resident_bytes() is None:
        pytest.skip("the system does not tell what is resident")
    before = resident_bytes()
    with recycling(256 * MIB, lasting=True):
        array(128, 1)
    with recycling(256 * MIB, lasting=False):
        assert resident_bytes() - before < 32 * MIB, "what an earlier call left goes back first"
        array(128, 1)
    assert resident_bytes() - before < 32 * MIB


def test_what_outlives_its_call_stays_as_it_is():
    with recycling(64 * MIB, lasting=True):
        kept = array(8, 7)
    for _ in range(3):
        with recycling(64 * MIB, lasting=True):
            array(8, 1), array(20, 2)
    assert bool((kept == 7).all())
    with recycling(64 * MIB, lasting=False):
        array(8, 1)
    assert bool((kept == 7).all())


def test_calls_on_two_threads_have_memory_of_their_own():
    failures = []

    def work(value):
        for _ in range(20):
            with recycling(64 * MIB, lasting=True):
                mine = [array(size, value) for size in (3, 6, 2)]
                if not all(bool((part == value).all()) for part in mine):
                    failures.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_without_an_arena_arrays_have_pages_of_their_own(monkeypatch):
    monkeypatch.setattr(_pages, "_new_arena", lambda: None)
    with recycling(64 * MIB, lasting=True):
        small, large = array(2, 1), array(40, 2)
    monkeypatch.undo()
    monkeypatch.setattr(_pages._Arena, "_room_for", lambda self, count: None)
    with recycling(64 * MIB, lasting=False):
        other = array(3, 3)
    for kept, value in ((small, 1), (large, 2), (other, 3)):
        assert bool((kept == value).all())
