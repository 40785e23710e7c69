"""Measures on kernels and on pairs of models: one function each, float64, difference form.

| file | measures |
|---|---|
| `kernel.py` | `kernel_distance`, `kernel_velocity`, `cone_half_angle`, `angle_degrees` |
| `alignment.py` | `kernel_alignment`, `centered_kernel_alignment` |
| `spectrum.py` | `spectrum`, `effective_rank`, `participation_ratio`, `stable_rank` |
| `regression.py` | `kernel_regression` |
| `parameters.py` | `parameter_dissimilarity`, `parameter_distance`, `lyapunov_exponent` |
| `functions.py` | `disagreement_rate` |
| `barrier.py` | `loss_barrier` |
"""

from twophase_fast.measures.alignment import centered_kernel_alignment, kernel_alignment
from twophase_fast.measures.barrier import loss_barrier
from twophase_fast.measures.functions import disagreement_rate
from twophase_fast.measures.kernel import angle_degrees, cone_half_angle, kernel_distance, kernel_velocity
from twophase_fast.measures.parameters import (
    ParameterDistance,
    lyapunov_exponent,
    parameter_dissimilarity,
    parameter_distance,
)
from twophase_fast.measures.regression import kernel_regression
from twophase_fast.measures.spectrum import Spectrum, effective_rank, participation_ratio, spectrum, stable_rank

__all__ = [
    "ParameterDistance",
    "Spectrum",
    "angle_degrees",
    "centered_kernel_alignment",
    "cone_half_angle",
    "disagreement_rate",
    "effective_rank",
    "kernel_alignment",
    "kernel_distance",
    "kernel_regression",
    "kernel_velocity",
    "loss_barrier",
    "lyapunov_exponent",
    "parameter_dissimilarity",
    "parameter_distance",
    "participation_ratio",
    "spectrum",
    "stable_rank",
]
