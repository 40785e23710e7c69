"""Keys of an experiment's configuration: what each means, its type, its default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

REQUIRED = object()


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        meaning: One line for people.
        expects: What a value must be, in words.
        valid: Whether a value is that.
        default: Value where the key is absent; `REQUIRED` for none.
    """

    meaning: str
    expects: str
    valid: Callable[[Any], bool]
    default: Any = REQUIRED


@dataclass(frozen=True)
class Table:
    """A table of keys; where `optional`, an absent table stays absent (nothing of that kind is measured)."""

    keys: Mapping[str, Key | Table]
    optional: bool = False


def is_integer(value: Any, least: int) -> bool:
    """Whether a value is an integer of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any, least: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= least


def _integer(meaning: str, least: int, default: Any = REQUIRED) -> Key:
    return Key(meaning, f"an integer of at least {least}", lambda v: is_integer(v, least), default)


def _number(meaning: str, default: Any = REQUIRED, least: float = 0.0) -> Key:
    return Key(meaning, f"a number of at least {least:g}", lambda v: _is_number(v, least), default)


def _integers(meaning: str, least: int, default: Any = REQUIRED) -> Key:
    valid = lambda v: isinstance(v, list) and all(is_integer(item, least) for item in v)  # noqa: E731
    return Key(meaning, f"a list of integers of at least {least}", valid, default)


def _flag(meaning: str, default: bool) -> Key:
    return Key(meaning, "true or false", lambda v: isinstance(v, bool), default)


def _text(meaning: str, default: Any = REQUIRED) -> Key:
    return Key(meaning, "a text", lambda v: isinstance(v, str) and bool(v), default)


def _choice(meaning: str, choices: tuple[str, ...], default: Any = REQUIRED) -> Key:
    return Key(meaning, f"one of {', '.join(choices)}", lambda v: v in choices, default)


def _maybe(key: Key) -> Key:
    """The same key, with None (absent) allowed and the default."""
    return Key(key.meaning, key.expects, lambda v: v is None or key.valid(v), None)


SCHEMA = Table(
    {
        "model": _text("zoo model, or package.module:factory"),
        "model_args": Key("keyword arguments of the factory", "a table", lambda v: isinstance(v, dict), {}),
        "data": _choice("data set", ("fashion-mnist-subset", "fashion-mnist", "cifar10"), "fashion-mnist-subset"),
        "steps": _integer("training steps of every trunk", 1),
        "batch_size": _integer("samples per step", 1),
        "seeds": _integers("one trunk each", 0, [0]),
        "test_size": _maybe(_integer("test samples used; absent: all", 1)),
        "evaluate_every": _integer("steps between evaluations of loss and accuracy", 1, 100),
        "device": _text("where to train", "cpu"),
        "threads": _maybe(_integer("CPU threads; 1 is best for tiny models, and on a busy machine", 1)),
        "workers": _integer("processes that train twins beside the one that trains trunks; 1: this one does it", 1, 1),
        "channels_last": _flag("memory layout of convolution weights; faster on CPU", False),
        "checkpoints": _choice("what is kept beside the run after the end", ("none", "trunk", "all"), "trunk"),
        "optimizer": Table(
            {
                "name": _choice("optimizer", ("sgd", "adam", "adamw"), "sgd"),
                "lr": _number("learning rate"),
                "momentum": _number("of SGD", 0.0),
                "weight_decay": _number("L2 coefficient", 0.0),
            }
        ),
        "scheduler": Table(
            {
                "name": _choice("learning-rate schedule, by step", ("constant", "multistep", "cosine"), "constant"),
                "milestones": _integers("steps at which multistep multiplies by gamma", 1, []),
                "gamma": _number("factor of multistep", 0.1),
            }
        ),
        "augmentation": Table(
            {
                "flip": _flag("mirror images at random", False),
                "crop": _integer("largest random shift in pixels", 0, 0),
            }
        ),
        "chaos": Table(
            {
                "spawn_steps": _integers("steps at which twins leave the trunk", 0),
                "horizons": _integers("steps after spawning at which twin and trunk are compared", 1),
                "perturbation": Table(
                    {
                        "kind": _choice(
                            "family",
                            ("gaussian", "gaussian_relative", "gaussian_init", "gradient", "single_weight"),
                            "gaussian_relative",
                        ),
                        "norm": _number("size", 1e-4),
                    }
                ),
                "control_spawn_steps": _maybe(_integers("spawn steps of control twins; absent: all", 0)),
                "barrier_alphas": _integer("points on the line, endpoints included", 2, 30),
                "barrier_horizons": _maybe(_integers("horizons with a barrier; absent: all", 1)),
                "barrier_test_size": _maybe(_integer("test samples of the barrier; absent: all", 1)),
                "barrier_batch_norm_size": _maybe(
                    _integer("training samples to re-estimate BatchNorm on along the line; absent: interpolated", 2)
                ),
            },
            optional=True,
        ),
        "cone": Table(
            {
                "probe_steps": _integers("steps with a kernel", 0),
                "probe_size": _integer("first so many test samples are the probe set", 1, 64),
                "output": _choice("form of the kernel", ("full", "trace", "diagonal", "sum"), "full"),
                "window": _integer("steps of the half-angle's window", 1),
                "dts": _maybe(_integers("differences of the velocity; absent: all successive ones", 1)),
                "references": _integers("steps the report draws distances to", 0, []),
            },
            optional=True,
        ),
        "controls": Table(
            {
                "low_lr": _maybe(_number("learning rate of the control trunks; absent: none")),
                "low_lr_seeds": _integers("seeds of the control trunks", 0, [0]),
            }
        ),
    }
)
