"""Errors against float64, and when a result is too wrong to be timed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.truth import naive_kernel
from benchmarks.workloads import Workload

WRONG = 1e-4  # relative error in float32 beyond which a result is not rounding but a mistake
WRONG_HIGH = 1e-5  # what precision "high" promises


@dataclass(frozen=True)
class Truth:
    """Some samples of a workload and their kernel in float64."""

    samples: torch.Tensor
    kernel: torch.Tensor

    def error(self, kernel: torch.Tensor) -> float:
        """‖K − truth‖_F / ‖truth‖_F over the checked samples."""
        part = kernel[self.samples][:, self.samples].double()
        return relative_error(part, self.kernel)


def truth_of(workload: Workload, model: nn.Module, x: torch.Tensor) -> Truth:
    """Compute the float64 kernel of a few samples drawn at random (seeded)."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    samples = order[: workload.checked].sort().values
    return Truth(samples, naive_kernel(model, x[samples], workload.output))


def relative_error(value: torch.Tensor, truth: torch.Tensor) -> float:
    """Relative error in the Frobenius norm; infinite if shapes differ or a value is not finite."""
    if value.shape != truth.shape or not bool(torch.isfinite(value).all()):
        return float("inf")
    return float((value.double() - truth).norm() / truth.norm())


def symmetry_error(kernel: torch.Tensor) -> float:
    """Largest |K − Kᵀ| over the largest |K|; 0 for a kernel that is symmetric bit for bit."""
    mirrored = kernel.permute(1, 0, 3, 2) if kernel.ndim == 4 else kernel.T
    return float((kernel - mirrored).abs().max() / kernel.abs().max())
