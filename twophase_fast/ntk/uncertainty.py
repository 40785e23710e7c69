"""The mean of independent unbiased estimates, and its standard error."""

from __future__ import annotations

import torch


class WeightedMean:
    """Running mean of estimates X_b whose variances are sigma^2 / w_b, entry by entry.

        mean = sum_b w_b X_b / W,   W = sum_b w_b
        stderr^2 = sum_b w_b (X_b - mean)^2 / ((B - 1) W)

    Both are unbiased for the mean and its variance. With equal weights the standard error is std / sqrt(B), which is
    also the delete-one jackknife's. Only two tensors are held, whatever the number B of estimates.
    """

    def __init__(self) -> None:
        self.count, self._weight = 0, 0.0
        self._mean = self._squares = torch.empty(0)

    def add(self, value: torch.Tensor, weight: float = 1.0) -> None:
        """Take in one more estimate (Welford's update: no cancellation)."""
        self.count += 1
        self._weight += weight
        if self.count == 1:
            self._mean, self._squares = value.clone(), torch.zeros_like(value)
            return
        difference = value - self._mean
        self._mean += difference * (weight / self._weight)
        self._squares += weight * difference * (value - self._mean)

    @property
    def mean(self) -> torch.Tensor:
        """The weighted mean."""
        return self._mean

    @property
    def stderr(self) -> torch.Tensor:
        """The standard error of the mean; needs two estimates."""
        return (self._squares / ((self.count - 1) * self._weight)).clamp_min(0).sqrt()
