import random

import numpy as np
import pytest
import torch

from twophase_fast.training import restore, snapshot


@pytest.mark.parametrize("spawn", [0, 1, 6])
def test_a_branch_continues_bit_for_bit(spawn, build, run, weights):
    trunk = run(build(), spawn)
    state = snapshot(trunk)
    run(trunk, 14)
    twin = build(seed=5)
    with torch.no_grad():
        for p in twin.model.parameters():
            p.zero_()
    restore(twin, state)
    assert torch.equal(weights(run(twin, 14)), weights(trunk))


def test_a_snapshot_serves_many_branches(build, run, weights):
    trunk = run(build(), 4)
    state = snapshot(trunk)
    ends = []
    for _ in range(3):
        restore(trunk, state)
        ends.append(weights(run(trunk, 10)))
    assert all(torch.equal(ends[0], end) for end in ends)


def test_adam_branches_too(build, run, weights):
    adam = lambda p: torch.optim.Adam(p, lr=0.01)  # noqa: E731
    trunk = run(build(optimizer=adam), 5)
    state = snapshot(trunk)
    run(trunk, 9)
    twin = build(optimizer=adam)
    restore(twin, state)
    assert torch.equal(weights(run(twin, 9)), weights(trunk))


class OwnLoop:
    """Somebody's loop that draws from the global generators."""

    def __init__(self):
        self.model = torch.nn.Linear(2, 1)

    def step(self, i):
        noise = torch.rand(1, 2) + random.random() + np.random.rand()  # noqa: NPY002
        with torch.no_grad():
            self.model.weight += noise
        return 0.0

    def state_dict(self):
        return self.model.state_dict()

    def load_state_dict(self, state):
        self.model.load_state_dict(state)


def test_global_generators_are_part_of_the_state():
    loop = OwnLoop()
    loop.step(0)
    state = snapshot(loop)
    loop.step(1)
    first = loop.model.weight.clone()
    restore(loop, state)
    loop.step(1)
    assert torch.equal(first, loop.model.weight)
