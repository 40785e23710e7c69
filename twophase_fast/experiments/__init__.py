"""Experiments: one trunk per seed serves the chaos effect (twins), the cone effect (kernels) and their controls.

api         run_experiment, run_config
schema      the keys of a configuration      config   read, check, fill in      build    values -> objects
plan        which steps matter               recipe   how a trunk is trained
runner      the order of things, resuming    trunk    twins    cone    ceilings    (one phase each)
job         what is asked, output files      session  what phases share         workspace  checkpoints
pool        twins in worker processes        worker   one of them               progress   the bar
presets/    demo, smoke, and the paper's two
"""

from __future__ import annotations

from twophase_fast.experiments.api import run_config, run_experiment
from twophase_fast.experiments.build import find_model, with_arguments
from twophase_fast.experiments.config import load_preset, preset_names, read_config, resolve_config, set_value
from twophase_fast.experiments.plan import Chaos, Cone, Controls

__all__ = [
    "Chaos",
    "Cone",
    "Controls",
    "find_model",
    "load_preset",
    "preset_names",
    "read_config",
    "resolve_config",
    "run_config",
    "run_experiment",
    "set_value",
    "with_arguments",
]
