import pytest
import torch
from torch import nn

from twophase_fast._types import InputError
from twophase_fast.training import DivergedError, FlipCrop, StepLoop, SupervisedLoop


def test_it_follows_the_protocol(build):
    assert isinstance(build(), StepLoop)


def test_training_is_a_function_of_the_seed(build, run, weights):
    torch.manual_seed(0)
    first = run(build(augmentation=FlipCrop(crop=1)), 12)
    second = build(augmentation=FlipCrop(crop=1))
    torch.manual_seed(123)  # the caller's generator plays no part
    run(second, 12)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(run(build(seed=6, augmentation=FlipCrop(crop=1)), 12)))


def test_it_equals_a_plain_loop_written_out(build):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    plain.load_state_dict(model.state_dict())
    loop = build(model)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for i in range(8):
        inputs, targets = loop.batch(i)
        loss = nn.functional.cross_entropy(plain(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * 0.5 ** ((i >= 3) + (i >= 7))
        optimizer.step()
        assert loop.step(i) == pytest.approx(loss.item(), rel=1e-6)
    for mine, theirs in zip(model.parameters(), plain.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_the_learning_rate_can_be_replaced_before_the_schedule_starts(build, run):
    loop = build(learning_rate=0.01)
    assert loop.learning_rate == 0.01
    assert run(loop, 4).learning_rate == pytest.approx(0.005)


def test_steps_come_in_order(build, run):
    loop = run(build(), 2)
    with pytest.raises(InputError, match=r"step\(5\) was asked for, but 2 steps are done"):
        loop.step(5)


def test_a_loss_that_is_not_finite_stops_and_changes_nothing(build, run):
    loop = run(build(seed=8), 2)
    with torch.no_grad():
        loop.model.head.bias[0] = float("nan")
    before = [p.clone() for p in loop.model.parameters()]
    with pytest.raises(DivergedError, match="nan at step 2 of seed 8"):
        loop.step(2)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, loop.model.parameters()))


def test_the_gradient_is_that_of_the_next_step_and_leaves_no_trace(build, run, weights):
    loop = run(build(scheduler=None, optimizer=lambda p: torch.optim.SGD(p, lr=0.5)), 3)
    before, rng = weights(loop), torch.get_rng_state()
    gradient = loop.gradient(3)
    assert torch.equal(before, weights(loop))
    assert torch.equal(rng, torch.get_rng_state())
    old = [p.detach().clone() for p in loop.model.parameters()]
    loop.step(3)
    for a, g, b in zip(old, gradient, loop.model.parameters()):
        torch.testing.assert_close(a - 0.5 * g, b.detach())


def test_bad_data_and_models_are_refused(data, build):
    inputs, targets = data()
    common = {"seed": 0, "optimizer": None, "loss_fn": None, "batch_size": 2}
    with pytest.raises(InputError, match="48 inputs but 47 targets"):
        SupervisedLoop(build().model, (inputs, targets[:-1]), **common)
    with pytest.raises(InputError, match="no parameter that requires grad"):
        SupervisedLoop(nn.Flatten(), (inputs, targets), **common)
