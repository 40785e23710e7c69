import pytest
import torch

from twophase_fast import ntk
from twophase_fast._types import InputError, StorageError
from twophase_fast.storage import Trajectory
from twophase_fast.training import Tracker
from twophase_fast.training import tracker as module

PROBE = torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("output", ["full", "trace"])
def test_tracking_never_changes_training(tmp_path, output, build, run, weights):
    torch.manual_seed(4)
    tracked = build()
    with Tracker(tracked.model, PROBE, out=tmp_path / "run.h5", every=2, output=output) as tracker:
        for i in range(9):
            tracker.step(i)
            tracked.step(i)
    drawn = torch.rand(1)
    torch.manual_seed(4)
    plain = run(build(), 9)
    assert torch.equal(weights(tracked), weights(plain))
    assert torch.equal(drawn, torch.rand(1))
    assert tracker.trajectory.steps == [0, 2, 4, 6, 8]


def test_it_records_the_kernel_in_eval_mode_with_metrics_and_parameters(tmp_path, build):
    loop = build()
    expected = {}
    with Tracker(loop.model, PROBE, out=tmp_path / "run.h5", every=3, config={"lr": 0.1}) as tracker:
        loop.model.norm.eval()  # a mixed state of flags must survive
        for i in range(7):
            assert tracker.step(i, loss=0.5 * i) == (i % 3 == 0)
            assert not loop.model.norm.training
            assert loop.model.drop.training
            if i % 3 == 0:
                flags = [m.training for m in loop.model.modules()]
                expected[i] = ntk.entk(loop.model.eval(), PROBE)
                for m, flag in zip(loop.model.modules(), flags):
                    m.training = flag
            with torch.no_grad():
                loop.model.head.weight += 0.01
    with Trajectory.open(tmp_path / "run.h5") as run:
        assert run.steps == run.parameter_steps == [0, 3, 6]
        assert run.config == {"lr": 0.1}
        for i, kernel in expected.items():
            assert torch.equal(run.kernel(i), kernel)
        assert run.metric("loss")[1].tolist() == [0.0, 1.5, 3.0]
        assert torch.equal(run.probe, PROBE)


def test_large_models_keep_their_parameters_only_when_asked(tmp_path, monkeypatch, model):
    monkeypatch.setattr(module, "STORED_PARAMETERS", 10)
    for name, choice, stored in (("a", None, []), ("b", True, [0])):
        with Tracker(model, PROBE, out=tmp_path / name, parameters=choice, output="trace") as tracker:
            tracker.step(0)
        with Trajectory.open(tmp_path / name) as run:
            assert run.parameter_steps == stored


def test_nothing_is_overwritten_unasked_and_steps_are_not_repeated(tmp_path, model):
    with Tracker(model, PROBE, out=tmp_path / "run.h5", output="trace") as tracker:
        tracker.step(0)
        with pytest.raises(InputError, match="step 0 already has"):
            tracker.step(0)
    with pytest.raises(StorageError, match="exists"):
        Tracker(model, PROBE, out=tmp_path / "run.h5")
    with pytest.raises(InputError, match="every=0"):
        Tracker(model, PROBE, out=tmp_path / "other.h5", every=0)


def test_metrics_are_numbers(tmp_path, model):
    with Tracker(model, PROBE, out=tmp_path / "run.h5", output="trace") as tracker:
        for value in ("low", torch.ones(2), None):
            with pytest.raises(InputError, match=r"metric 'loss' is .*; expected a number"):
                tracker.step(0, loss=value)
        tracker.step(0, loss=torch.tensor(0.5))
    assert Trajectory.open(tmp_path / "run.h5").metric("loss")[1].tolist() == [0.5]


def test_a_budget_may_be_text(tmp_path, model):
    with Tracker(model, PROBE, out=tmp_path / "run.h5", output="trace", memory_budget="1 GB") as tracker:
        assert tracker.step(0)


def test_an_error_in_the_loop_keeps_what_was_recorded(tmp_path, model):
    def their_loop():
        with Tracker(model, PROBE, out=tmp_path / "run.h5") as tracker:
            tracker.step(0)
            raise RuntimeError("their bug")

    with pytest.raises(RuntimeError, match="their bug"):
        their_loop()
    assert Trajectory.open(tmp_path / "run.h5").steps == [0]
