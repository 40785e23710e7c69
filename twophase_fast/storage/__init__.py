"""Trajectories in HDF5: what FORMAT.md describes, written so that a kill at any moment loses nothing."""

from twophase_fast.storage.trajectory import Trajectory
from twophase_fast.storage.verify import verify

__all__ = ["Trajectory", "verify"]
