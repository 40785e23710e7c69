"""twophase_fast: exact empirical Neural Tangent Kernels, twin runs and kernel trajectories."""

from twophase_fast.ntk import entk

__all__ = ["entk"]
