"""twophase_fast: exact empirical Neural Tangent Kernels, twin runs and kernel trajectories."""
