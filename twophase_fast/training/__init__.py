"""Training whose every random draw is a function of (seed, step), so that twin runs share all their noise.

noise, augmentation   draws as functions of (seed, step)
loop                  StepLoop (the protocol), SupervisedLoop
branch                snapshot and restore the full state of a loop
perturbation          θ -> θ + ε, and what it really changed
checkpoint            a nested state in one safetensors file, atomically
tracker               Tracker: kernels of anybody's loop
"""

from __future__ import annotations

from twophase_fast.training.augmentation import FlipCrop
from twophase_fast.training.branch import restore, snapshot
from twophase_fast.training.checkpoint import load_checkpoint, read_note, save_checkpoint
from twophase_fast.training.loop import DivergedError, StepLoop, SupervisedLoop
from twophase_fast.training.noise import BatchOrder, derive_seed, generator_for, seeded_rng
from twophase_fast.training.perturbation import Perturbation, Realised, perturb
from twophase_fast.training.tracker import Tracker

__all__ = [
    "BatchOrder",
    "DivergedError",
    "FlipCrop",
    "Perturbation",
    "Realised",
    "StepLoop",
    "SupervisedLoop",
    "Tracker",
    "derive_seed",
    "generator_for",
    "load_checkpoint",
    "perturb",
    "read_note",
    "restore",
    "save_checkpoint",
    "seeded_rng",
    "snapshot",
]
