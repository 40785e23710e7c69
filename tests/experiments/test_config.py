import pytest

from twophase_fast._types import ConfigError, StorageError
from twophase_fast.experiments import load_preset, preset_names, read_config, resolve_config, set_value
from twophase_fast.experiments.build import find_model, make_factory, make_plan, make_recipe
from twophase_fast.experiments.config import differences
from twophase_fast.zoo import MODELS


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_valid_plan(name):
    config = resolve_config(load_preset(name))
    plan = make_plan(config)
    assert plan.total_steps > 0
    make_factory({**config, "device": "cpu"})
    assert resolve_config({k: v for k, v in config.items() if v is not None}).keys() == config.keys()


def test_the_demo_is_the_recipe_of_its_description():
    config = resolve_config(load_preset("demo"))
    assert config["chaos"]["spawn_steps"] == [0, 10, 25, 50, 100, 200, 300, 400]
    assert config["chaos"]["perturbation"] == {"kind": "gaussian_relative", "norm": 1e-4}
    assert config["optimizer"] == {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
    assert (config["steps"], config["batch_size"], config["seeds"]) == (600, 64, [0, 1, 2])
    assert config["controls"] == {"low_lr": 0.01, "low_lr_seeds": [0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stesp": 3}, r"unknown key 'stesp'; did you mean 'steps'\?"),
        ({"chaos": {"horizon": [1]}}, r"unknown key 'chaos.horizon'; did you mean 'chaos.horizons'\?"),
        ({"learning_rate": 0.1}, r"unknown key 'learning_rate'; did you mean '.*'\?"),
        ({"lr": 0.1}, r"unknown key 'lr'; did you mean 'optimizer.lr'\?"),
        ({"steps": 0}, "steps is 0; expected an integer of at least 1"),
        ({"steps": True}, "steps is True; expected an integer"),
        ({"seeds": [0, "1"]}, r"seeds is \[0, '1'\]; expected a list of integers"),
        ({"data": "mnist"}, "data is 'mnist'; expected one of fashion-mnist-subset"),
        ({"optimizer": 3}, "optimizer is 3; expected a table"),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr is 'fast'; expected a number"),
        ({"switch": {}}, "not available yet"),
    ],
)
def test_mistakes_are_named_with_what_is_near(config, change, message):
    with pytest.raises(ConfigError, match=message):
        resolve_config({**config, **change})


def test_a_missing_key_is_named_with_its_meaning(config):
    del config["steps"]
    with pytest.raises(ConfigError, match=r"key 'steps' is missing \(training steps"):
        resolve_config(config)
    with pytest.raises(ConfigError, match=r"key 'optimizer.lr' is missing"):
        resolve_config({"model": "mlp", "steps": 1, "batch_size": 1})


def test_absent_measurements_stay_absent(config):
    del config["chaos"], config["cone"]
    resolved = resolve_config(config)
    assert resolved["chaos"] is None
    assert resolved["cone"] is None
    assert resolve_config({**resolved})["chaos"] is None


def test_steps_that_do_not_fit_are_refused(config):
    for change, message in (
        ("chaos.spawn_steps=[0,3,9]", "spawned at step 9 reaches none of chaos.horizons"),
        ("chaos.spawn_steps=[3,0]", "expected increasing integers"),
        ("chaos.barrier_horizons=[7]", r"barrier_horizons has \[7\]"),
        ("cone.probe_steps=[0,4,11]", "end at 11, after the last step 10"),
        ("cone.references=[1]", r"references has \[1\]"),
        ("seeds=[]", "expected one or more different ones"),
        ("seeds=[1,1]", "expected one or more different ones"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_plan(resolve_config(set_value(config, change)))


def test_set_value_reads_toml_and_leaves_the_original_alone(config):
    changed = set_value(config, "chaos.horizons=[1, 2]")
    assert changed["chaos"]["horizons"] == [1, 2]
    assert config["chaos"]["horizons"] == [2, 5]
    assert set_value(config, "data=cifar10")["data"] == "cifar10"
    assert set_value(config, "optimizer.lr = 0.5")["optimizer"]["lr"] == 0.5
    assert set_value({}, "cone.window=3") == {"cone": {"window": 3}}
    for bad in ("steps", "=3", "chaos..x=1"):
        with pytest.raises(ConfigError, match="expected key=value"):
            set_value(config, bad)
    with pytest.raises(ConfigError, match="'steps' is a value, not a table"):
        set_value(config, "steps.x=1")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(StorageError, match=r"cannot read the configuration .*none\.toml"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        read_config(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match=r"unknown preset 'dmeo' \(did you mean 'demo'\?\)"):
        load_preset("dmeo")


def test_models_are_found_in_the_zoo_or_in_a_module(tmp_path, monkeypatch):
    assert find_model("resnet20") is MODELS["resnet20"]
    with pytest.raises(ConfigError, match="unknown model 'resnet'; did you mean 'resnet20'"):
        find_model("resnet")
    (tmp_path / "their_models.py").write_text("def tiny():\n    return 'model'\nx = 1\n")
    monkeypatch.chdir(tmp_path)
    assert find_model("their_models:tiny")() == "model"
    with pytest.raises(ConfigError, match="no callable 'x'"):
        find_model("their_models:x")
    with pytest.raises(ConfigError, match="cannot import 'no_such_module'"):
        find_model("no_such_module:x")


def test_arguments_devices_and_optimizers_that_do_not_exist(config):
    for change, message in (
        ({"model_args": {"width": 3}}, "does not take width=3: .*its arguments are"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"optimizer": {"name": "adam", "lr": 0.1, "momentum": 0.9}}, "momentum belongs to sgd"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_recipe(resolve_config({**config, **change}), None)


def test_differences_are_dotted_names():
    a = {"x": 1, "t": {"y": [1], "z": None}, "only": 2}
    assert differences(a, {"x": 1, "t": {"y": [2], "z": None}}) == ["only", "t.y"]
    assert differences(a, a) == []
