import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from twophase_fast import measures, ntk
from twophase_fast._types import ConfigError, InputError, StorageError
from twophase_fast.experiments import Chaos, Cone, Controls, resolve_config, run_config, run_experiment, twins
from twophase_fast.experiments.build import make_recipe
from twophase_fast.experiments.plan import TrunkName
from twophase_fast.storage import Trajectory
from twophase_fast.training import DivergedError, Perturbation, generator_for, perturb

TWIN_COLUMNS = {
    *("variant", "seed", "spawn_step", "horizon", "control", "perturbation"),
    *("requested_norm", "realised_norm", "changed_entries", "total_entries"),
    *("dissimilarity", "distance", "relative_distance", "barrier", "disagreement", "twin_test_loss", "trunk_test_loss"),
}


def loop_at(recipe, trunk, step, spawn=None, perturbation=None):
    """Train from scratch to a step, by hand; optionally perturbed at the spawn step."""
    loop = recipe.loop(trunk)
    for i in range(step + 1):
        if i == spawn:
            perturb(loop.model, perturbation, generator_for(trunk.seed, spawn, "perturbation"))
        if i < step:
            loop.step(i)
    return loop


@pytest.fixture(scope="module")
def run(whole_config, tmp_path_factory):
    return run_config(whole_config, tmp_path_factory.mktemp("run") / "run.h5")


def rows(run, table, **wanted):
    columns = run.table(table)
    keep = np.ones(len(columns["variant"]), dtype=bool)
    for name, value in wanted.items():
        keep &= columns[name] == value
    return [dict(zip(columns, values)) for values in zip(*(column[keep] for column in columns.values()))]


def test_trunks_are_trained_as_without_measurement_and_described(run, config):
    recipe = make_recipe(resolve_config(config), None)
    assert run.children == ["main-seed0", "main-seed1", "low_lr-seed1"]
    assert run.config == resolve_config(config)
    assert run.attrs["kind"] == "experiment"
    for name, trunk, rate in (
        ("main-seed1", TrunkName("main", 1), 0.1),
        ("low_lr-seed1", TrunkName("low_lr", 1, 0.01), 0.01),
    ):
        child = run.child(name)
        assert child.attrs["learning_rate"] == rate
        assert (child.attrs["variant"], child.attrs["seed"]) == (trunk.variant, 1)
        assert child.attrs["steps_per_epoch"] == 6000 // 16
        assert child.steps == child.parameter_steps == [0, 2, 4, 8]
        assert child.metric("test_loss")[0].tolist() == [0, 2, 4, 8, 10]
        assert child.metric("learning_rate")[1].tolist() == pytest.approx([rate] * 3 + [rate / 2] * 2)
        loop = loop_at(recipe, trunk, 8)
        for key, value in loop.model.state_dict().items():
            assert torch.equal(child.parameters(8)[key], value)
        logits = loop.model.eval()(recipe.test[0])
        assert child.metric("test_loss")[1][3] == pytest.approx(
            F.cross_entropy(logits, recipe.test[1]).item(), rel=1e-6
        )
        assert child.metric("test_accuracy")[1][3] == (logits.argmax(1) == recipe.test[1]).double().mean()
        assert torch.equal(child.kernel(8), ntk.entk(loop.model, recipe.probe))


def test_a_twin_is_what_one_gets_by_hand(run, config):
    recipe, trunk = make_recipe(resolve_config(config), None), TrunkName("main", 1)
    epsilon = Perturbation("gaussian_relative", 1e-3)
    for horizon in (2, 5):
        (row,) = rows(run, "twins", variant="main", seed=1, spawn_step=3, horizon=horizon, control=0)
        assert set(row) == TWIN_COLUMNS
        plain = loop_at(recipe, trunk, 3 + horizon).model
        twin = loop_at(recipe, trunk, 3 + horizon, 3, epsilon).model
        assert row["dissimilarity"] == measures.parameter_dissimilarity(plain, twin)
        distance = measures.parameter_distance(plain, twin)
        assert (row["distance"], row["relative_distance"]) == (distance.total, distance.relative)
        assert row["disagreement"] == measures.disagreement_rate(plain, twin, recipe.test[0])
        few = (recipe.test[0][:10], recipe.test[1][:10])
        barrier = measures.loss_barrier(twin, plain, few, F.cross_entropy, alphas=3) if horizon == 5 else math.nan
        assert row["barrier"] == pytest.approx(barrier, nan_ok=True)
        assert row["perturbation"] == "gaussian_relative"
        assert row["total_entries"] == 784 * 6 + 6 + 60 + 10
        norm = torch.cat([p.flatten() for p in loop_at(recipe, trunk, 3).model.parameters()]).double().norm().item()
        assert row["requested_norm"] == pytest.approx(1e-3 * norm)
        assert row["realised_norm"] == pytest.approx(1e-3 * norm, rel=1e-3)


def test_every_twin_has_its_rows_and_controls_do_not_move(run):
    for variant, seed in (("main", 0), ("main", 1), ("low_lr", 1)):
        found = [(r["spawn_step"], r["horizon"]) for r in rows(run, "twins", variant=variant, seed=seed, control=0)]
        assert found == [(0, 2), (0, 5), (3, 2), (3, 5)]
        controls = rows(run, "twins", variant=variant, seed=seed, control=1)
        assert [(r["spawn_step"], r["horizon"]) for r in controls] == [(3, 2), (3, 5)]
        for row in controls:
            zero = [row[c] for c in ("requested_norm", "realised_norm", "changed_entries", "dissimilarity", "distance")]
            assert [*zero, row["relative_distance"], row["disagreement"]] == [0] * 7
            assert row["barrier"] == 0 or (row["horizon"] == 2 and math.isnan(row["barrier"]))
            assert row["twin_test_loss"] == row["trunk_test_loss"]


def test_cone_tables_are_the_measures_of_the_stored_kernels(run):
    child = run.child("main-seed0")
    trace = lambda k: torch.einsum("nmcc->nm", k)  # noqa: E731
    for output, form in (("full", lambda k: k), ("trace", trace)):
        pairs = rows(run, "kernel_distance", variant="main", seed=0, output=output)
        assert [(r["step_a"], r["step_b"]) for r in pairs] == [(0, 2), (0, 4), (0, 8), (2, 4), (2, 8), (4, 8)]
        distances = {}
        for row in pairs:
            a, b = int(row["step_a"]), int(row["step_b"])
            distances[a, b] = measures.kernel_distance(form(child.kernel(a)), form(child.kernel(b)))
            assert row["distance"] == pytest.approx(distances[a, b], rel=1e-6)
            moved = measures.parameter_distance(child.parameters(a), child.parameters(b)).relative
            assert row["relative_parameter_distance"] == pytest.approx(moved)
        angles = {r["step"]: r["half_angle_degrees"] for r in rows(run, "cone", variant="main", seed=0, output=output)}
        expected = max(float(measures.angle_degrees(distances[0, t])) for t in (2, 4))
        assert angles[0] == pytest.approx(expected, rel=1e-5)
        assert math.isnan(angles[8])
        velocities = rows(run, "velocity", variant="main", seed=0, output=output)
        assert [(r["step"], r["dt"]) for r in velocities] == [(0, 2), (2, 2), (0, 4), (4, 4)]
        last = velocities[-1]
        assert last["velocity"] == pytest.approx(distances[4, 8] / 4, rel=1e-5)
        assert last["velocity_per_epoch"] == pytest.approx(last["velocity"] * 375)
        assert last["velocity_per_learning_rate"] == pytest.approx(last["velocity"] / 0.1)


def test_ceilings_compare_independent_seeds(run, config):
    recipe = make_recipe(resolve_config(config), None)
    found = rows(run, "ceilings", variant="main")
    assert [r["step"] for r in found] == [0, 2, 5, 8, 10]
    assert {(r["seed_a"], r["seed_b"]) for r in found} == {(0, 1)}
    assert not rows(run, "ceilings", variant="low_lr")
    a, b = (loop_at(recipe, TrunkName("main", seed), 5).model for seed in (0, 1))
    assert found[2]["dissimilarity"] == measures.parameter_dissimilarity(a, b)
    assert found[2]["disagreement"] == measures.disagreement_rate(a, b, recipe.test[0])


@pytest.mark.parametrize(("policy", "left"), [("none", None), ("trunk", 8), ("all", 12)])
def test_checkpoints_that_stay_are_those_asked_for(config, tmp_path, policy, left):
    config = {**config, "seeds": [0], "controls": {}, "checkpoints": policy}
    run_config(config, tmp_path / "run.h5")
    folder = tmp_path / "run.h5.checkpoints"
    assert folder.exists() == (left is not None)
    if left is not None:
        names = sorted(f.name for f in (folder / "main-seed0").iterdir())
        assert [n for n in names if n.startswith("model-")] == [
            f"model-{step:08d}.ckpt" for step in (0, 2, 3, 4, 5, 8, 10)
        ]
        assert len(names) == (7 if policy == "trunk" else 7 + 6)


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Dropout(0.2))
        self.head = nn.Linear(48, 3)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 6, 6, generator=generator), torch.randint(3, (n,), generator=generator)


def experiment(out, **changes):
    arguments = {
        "optimizer": lambda p: torch.optim.Adam(p, lr=0.01),
        "scheduler": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 8),
        "loss_fn": F.cross_entropy,
        "steps": 8,
        "batch_size": 8,
        "seeds": [3],
        "probe": data(4, 2)[0],
        "chaos": Chaos([0, 4], [2, 4], Perturbation("gaussian_init", 1e-2), barrier_alphas=3),
        "cone": Cone([0, 4, 8], output="trace", window=4),
    } | changes
    return run_experiment(Noisy, data(32, 0), torch.utils.data.TensorDataset(*data(16, 1)), out=out, **arguments)


def test_anybodys_model_with_batchnorm_dropout_adam_and_a_schedule(tmp_path):
    run = experiment(tmp_path / "run.h5", controls=Controls(0.001, [3]))
    controls = rows(run, "twins", control=1)
    assert len(controls) == 8
    assert all(r["distance"] == r["dissimilarity"] == r["disagreement"] == r["barrier"] == 0 for r in controls)
    assert all(r["distance"] > 0 for r in rows(run, "twins", control=0))
    assert set(run.table("kernel_distance")["output"]) == {"trace"}
    assert run.child("main-seed3").kernel(4).shape == (4, 4)
    assert run.child("low_lr-seed3").attrs["learning_rate"] == 0.001
    assert run.config["model"].endswith(":Noisy")
    assert run.config["chaos"]["perturbation"] == {"kind": "gaussian_init", "norm": 1e-2}


@pytest.mark.parametrize("size", [None, 20])
def test_the_barrier_re_estimates_batchnorm_where_asked(tmp_path, monkeypatch, size):
    used, original = [], twins.loss_barrier

    def barrier(*args, batch_norm_data, **kwargs):
        used.append(batch_norm_data)
        return original(*args, batch_norm_data=batch_norm_data, **kwargs)

    monkeypatch.setattr(twins, "loss_barrier", barrier)
    chaos = Chaos([2], [6], barrier_alphas=3, barrier_batch_norm_size=size)
    run = experiment(tmp_path / "run.h5", cone=None, chaos=chaos)
    assert rows(run, "twins", control=1)[0]["barrier"] == 0
    expected = [None, None] if size is None else [data(32, 0)[0][:20]] * 2
    assert all(a is b or torch.equal(a, b) for a, b in zip(used, expected, strict=True))


@pytest.mark.parametrize("kind", ["gaussian", "gradient", "single_weight"])
def test_every_family_of_perturbation_spawns_twins(tmp_path, kind):
    run = experiment(tmp_path / "run.h5", cone=None, chaos=Chaos([4], [2], Perturbation(kind, 1e-2), barrier_alphas=2))
    (row,) = rows(run, "twins", control=0)
    assert row["realised_norm"] == pytest.approx(1e-2, rel=1e-3)
    assert (row["changed_entries"] == 1) == (kind == "single_weight")


def test_one_measurement_goes_without_the_other(tmp_path):
    assert experiment(tmp_path / "a.h5", chaos=None).tables == ["cone", "kernel_distance", "velocity"]
    run = experiment(tmp_path / "b.h5", cone=None, probe=None)
    assert run.tables == ["twins"]
    assert run.child("main-seed3").steps == []


def test_a_run_leaves_no_trace_in_the_callers_random_state_threads_or_output(tmp_path, capfd):
    state = torch.get_rng_state()
    experiment(tmp_path / "run.h5", threads=2, chaos=None, cone=None, steps=2)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == 1
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_when_asked(tmp_path, capfd):
    experiment(tmp_path / "run.h5", progress=True)
    shown = capfd.readouterr().err
    assert "main-seed3" in shown
    assert "step/s" in shown
    assert "24/24" in shown


def test_nothing_is_overwritten_unasked(config, tmp_path):
    out = tmp_path / "run.h5"
    experiment(out)
    before = out.read_bytes()
    with pytest.raises(StorageError, match="exists"):
        experiment(out)
    assert out.read_bytes() == before
    first = Trajectory.open(out).attrs["id"]
    assert experiment(out, overwrite=True).attrs["id"] != first
    out.unlink()
    with pytest.raises(StorageError, match="holds checkpoints of another experiment"):
        experiment(out)
    assert not (tmp_path / "run.h5.parts").exists()


def test_divergence_names_step_and_seed_and_keeps_what_was_recorded(tmp_path):
    out = tmp_path / "run.h5"
    with pytest.raises(DivergedError, match=r"main-seed3: the loss is .* at step \d of seed 3 .*is kept"):
        experiment(out, optimizer=lambda p: torch.optim.SGD(p, lr=1e30), evaluate_every=1)
    run = Trajectory.open(out)
    assert run.child("main-seed3").steps == [0]
    assert not run.attrs["complete"]


def test_models_data_and_arguments_that_do_not_fit_are_refused_before_anything_is_written(config, tmp_path):
    out = tmp_path / "run.h5"
    config["model"], config["model_args"] = "resnet20", {}
    with pytest.raises(InputError, match=r"cannot take the data \(inputs \(1, 28, 28\)"):
        run_config(config, out)
    with pytest.raises(ConfigError, match="did you mean"):
        run_config({**config, "sedes": [1]}, out)
    for change, message in (
        ({"switch": object()}, "not available yet"),
        ({"probe": None}, "cone= needs probe="),
        ({"checkpoints": "some"}, "checkpoints='some'"),
        ({"seeds": []}, "one or more"),
        ({"batch_size": 64}, "batch_size is 64"),
    ):
        with pytest.raises(InputError, match=message):
            experiment(out, **change)
    with pytest.raises(InputError, match="returned a str"):
        run_experiment(
            lambda: "model",
            data(8, 0),
            data(8, 1),
            optimizer=None,
            loss_fn=None,
            steps=1,
            batch_size=1,
            seeds=[0],
            out=out,
        )
    with pytest.raises(InputError, match="test has 16 inputs and 15 targets"):
        run_experiment(
            Noisy,
            data(8, 0),
            (data(16, 0)[0], data(15, 0)[1]),
            optimizer=None,
            loss_fn=None,
            steps=1,
            batch_size=1,
            seeds=[0],
            out=out,
        )
    assert not list(tmp_path.iterdir())
