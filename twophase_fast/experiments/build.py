"""From the plain values of a configuration to models, data, optimizers and plans."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from twophase_fast._types import ConfigError, InputError
from twophase_fast.experiments.config import Config
from twophase_fast.experiments.plan import Chaos, Cone, Controls, Plan
from twophase_fast.experiments.recipe import Recipe, make_model
from twophase_fast.training import FlipCrop, Perturbation
from twophase_fast.zoo import MODELS, SOURCES, load


def find_model(name: str) -> Callable[..., nn.Module]:
    """Return the factory of a zoo model, or the one at "package.module:factory" (the present folder included).

    Raises:
        ConfigError: There is none of that name.
    """
    if ":" not in name:
        if name not in MODELS:
            close = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.0)
            raise ConfigError(
                f"unknown model {name!r}; did you mean {close[0]!r}? Known: {', '.join(MODELS)}, or one of your own as "
                "package.module:factory"
            )
        return MODELS[name]
    module_name, _, attribute = name.partition(":")
    factory = getattr(_import(module_name, name), attribute, None)
    if not callable(factory):
        raise ConfigError(f"model {name!r}: {module_name} has no callable {attribute!r}")
    return factory


def with_arguments(name: str, arguments: Mapping[str, Any]) -> Callable[..., nn.Module]:
    """Return the factory of `find_model(name)` with arguments bound to it.

    Raises:
        ConfigError: There is none of that name, or it does not take them.
    """
    factory = find_model(name)
    signature = inspect.signature(factory)
    try:
        signature.bind_partial(**arguments)
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ConfigError(f"model {name!r} does not take {given}: {error}; its arguments are {signature}") from error
    return partial(factory, **arguments)


def _import(module_name: str, name: str) -> Any:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # whatever runs when a module of theirs is imported
        raise ConfigError(
            f"model {name!r}: cannot import {module_name!r} ({error}); is it installed or in {here}?"
        ) from error
    finally:
        sys.path.remove(here)


def make_factory(config: Config) -> Callable[..., nn.Module]:
    """Return a function `factory(seed=k)` giving the model on the device and in the memory layout asked for.

    Raises:
        ConfigError: The model is not known, does not take `model_args`, or the device is not there.
    """
    factory = with_arguments(config["model"], config["model_args"])
    device = _device(config["device"])

    def make(seed: int) -> nn.Module:
        model = make_model(factory, seed).to(device)
        return model.to(memory_format=torch.channels_last) if config["channels_last"] else model  # type: ignore[call-overload]

    return make


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def _optimizer(table: Config) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    common = {"lr": table["lr"], "weight_decay": table["weight_decay"]}
    if table["name"] == "sgd":
        return partial(torch.optim.SGD, momentum=table["momentum"], **common)
    if table["momentum"]:
        raise ConfigError(f"optimizer.momentum belongs to sgd; {table['name']} has betas of its own: remove it")
    return partial({"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[table["name"]], **common)


def _scheduler(table: Config, steps: int) -> Callable[[torch.optim.Optimizer], Any] | None:
    if table["name"] == "multistep":
        return partial(torch.optim.lr_scheduler.MultiStepLR, milestones=table["milestones"], gamma=table["gamma"])
    if table["name"] == "cosine":
        return partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps)
    return None


def make_recipe(config: Config, data_dir: str | Path | None) -> Recipe:
    """Read the data and put together how trunks are trained.

    Args:
        config: Resolved.
        data_dir: Folder of the data set, where it is not embedded.

    Raises:
        ConfigError: The configuration asks for something that is not there.
    """
    train, test = load(config["data"], data_dir)
    augmentation = config["augmentation"]
    fill = SOURCES[config["data"]].black
    size = config["test_size"]
    return Recipe(
        model_factory=make_factory(config),
        train=(train.inputs, train.targets),
        test=(test.inputs[:size], test.targets[:size]),
        probe=test.inputs[: config["cone"]["probe_size"]] if config["cone"] else test.inputs[:1],
        optimizer=_optimizer(config["optimizer"]),
        scheduler=_scheduler(config["scheduler"], config["steps"]),
        loss_fn=F.cross_entropy,
        batch_size=config["batch_size"],
        augmentation=FlipCrop(**augmentation, fill=fill) if any(augmentation.values()) else None,
    )


def make_plan(config: Config) -> Plan:
    """Decide what is measured at which step.

    Args:
        config: Resolved.

    Raises:
        ConfigError: Steps that do not fit together.
    """
    chaos, cone = config["chaos"], config["cone"]
    try:
        return Plan(
            steps=config["steps"],
            seeds=config["seeds"],
            evaluate_every=config["evaluate_every"],
            chaos=Chaos(**{**chaos, "perturbation": Perturbation(**chaos["perturbation"])}) if chaos else None,
            cone=Cone(**{k: v for k, v in cone.items() if k != "probe_size"}) if cone else None,
            controls=Controls(**config["controls"]),
        )
    except ConfigError:
        raise
    except InputError as error:
        raise ConfigError(str(error)) from error
