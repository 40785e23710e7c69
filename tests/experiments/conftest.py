import copy

import numpy as np
import pytest
import torch

from twophase_fast.storage import Trajectory

TINY = {
    "model": "mlp",
    "model_args": {"widths": [6]},
    "steps": 10,
    "batch_size": 16,
    "seeds": [0, 1],
    "test_size": 24,
    "evaluate_every": 4,
    "threads": 1,
    "optimizer": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    "scheduler": {"name": "multistep", "milestones": [6], "gamma": 0.5},
    "augmentation": {"flip": True, "crop": 2},
    "chaos": {
        "spawn_steps": [0, 3],
        "horizons": [2, 5],
        "perturbation": {"kind": "gaussian_relative", "norm": 1e-3},
        "control_spawn_steps": [3],
        "barrier_alphas": 3,
        "barrier_horizons": [5],
        "barrier_test_size": 10,
    },
    "cone": {"probe_steps": [0, 2, 4, 8], "probe_size": 3, "window": 4, "dts": [2, 4], "references": [0, 4]},
    "controls": {"low_lr": 0.01, "low_lr_seeds": [1]},
}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """What is recomputed by hand must sum floats in the order of the run; and tiny models gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config():
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def whole_config():
    return copy.deepcopy(TINY)


def contents(path):
    """Everything a run holds that must not depend on how often it was cut off."""
    run = Trajectory.open(path)
    found = {"config": run.config}
    for name in run.tables:
        table = run.table(name)
        order = sorted(range(len(table["variant"])), key=lambda i: [str(column[i]) for column in table.values()])
        found[name] = {column: values[order].tolist() for column, values in table.items()}
    for name in run.children:
        child = run.child(name)
        found[name] = {
            "attrs": child.attrs,
            "metrics": {metric: [v.tolist() for v in child.metric(metric)] for metric in child.metrics},
            "kernels": {step: child.kernel(step) for step in child.steps},
            "parameters": {step: child.parameters(step) for step in child.parameter_steps},
        }
    return found


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, list):
        return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=not (a and isinstance(a[0], str)))
    return a == b


@pytest.fixture
def identical():
    """Function of two paths: whether two runs hold the same, bit for bit."""

    def compare(first, second, but=()):
        a, b = contents(first), contents(second)
        assert a.keys() == b.keys()
        for name in a.keys() - set(but):
            assert same(a[name], b[name]), name
        return True

    return compare
