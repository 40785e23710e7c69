"""twophase_fast: exact empirical Neural Tangent Kernels, twin runs and kernel trajectories.

Public names are imported when they are first used, so that `import twophase_fast` and `twophase --help` are fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twophase_fast import experiments, measures, ntk, ops, report, rules, storage, training, zoo
    from twophase_fast._matrix import as_matrix
    from twophase_fast._types import (
        BackendError,
        ConfigError,
        InputError,
        StorageError,
        TwoPhaseError,
        UnsupportedModelError,
    )
    from twophase_fast.experiments import Chaos, Cone, Controls, run_experiment
    from twophase_fast.measures import kernel_regression
    from twophase_fast.ntk import Estimate, NTKOperator, Plan, calibrate, entk, entk_estimate, plan
    from twophase_fast.ntk.verify import VerificationError
    from twophase_fast.storage import Trajectory
    from twophase_fast.training import Tracker

_HOMES = {
    "entk": "ntk",
    "entk_estimate": "ntk",
    "Estimate": "ntk",
    "calibrate": "ntk",
    "plan": "ntk",
    "NTKOperator": "ntk",
    "Plan": "ntk",
    "as_matrix": "_matrix",
    "kernel_regression": "measures",
    "Trajectory": "storage",
    "Tracker": "training",
    "run_experiment": "experiments",
    "Chaos": "experiments",
    "Cone": "experiments",
    "Controls": "experiments",
    "VerificationError": "ntk.verify",
    **dict.fromkeys(
        ("BackendError", "ConfigError", "InputError", "StorageError", "TwoPhaseError", "UnsupportedModelError"),
        "_types",
    ),
}
_FOLDERS = ("experiments", "measures", "ntk", "ops", "report", "rules", "storage", "training", "zoo")

__all__ = [
    "BackendError",
    "Chaos",
    "Cone",
    "ConfigError",
    "Controls",
    "Estimate",
    "InputError",
    "NTKOperator",
    "Plan",
    "StorageError",
    "Tracker",
    "Trajectory",
    "TwoPhaseError",
    "UnsupportedModelError",
    "VerificationError",
    "as_matrix",
    "calibrate",
    "entk",
    "entk_estimate",
    "experiments",
    "kernel_regression",
    "measures",
    "ntk",
    "ops",
    "plan",
    "report",
    "rules",
    "run_experiment",
    "storage",
    "training",
    "zoo",
]


def __getattr__(name: str) -> Any:
    """Import a public name or folder on first use.

    Raises:
        AttributeError: There is no such name.
    """
    if name in _FOLDERS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
