"""Random flip and crop of image batches, drawn from a generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class FlipCrop:
    """Mirror each image with probability 1/2, then shift it by up to `crop` pixels in each direction.

    Attributes:
        flip: Mirror left and right.
        crop: Largest shift in pixels; 0 for none.
        fill: Value of the pixels shifted in, one number or one per channel (a black pixel after normalisation).
    """

    flip: bool = True
    crop: int = 4
    fill: float | Sequence[float] = 0.0

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return augmented images; draws come from `generator` (CPU) alone.

        Args:
            images: [N, channels, H, W].
            generator: Source of randomness.
        """
        n, device = len(images), images.device
        if self.flip:
            mirrored = torch.rand(n, generator=generator).lt(0.5).to(device)
            images = torch.where(mirrored.view(n, 1, 1, 1), images.flip(3), images)
        if self.crop:
            shift = torch.randint(2 * self.crop + 1, (2, n), generator=generator).to(device)
            images = self._shifted(images, *shift)
        return images

    def _shifted(self, images: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        n, _, height, width = images.shape
        fill = torch.as_tensor(self.fill, dtype=images.dtype, device=images.device).view(-1, 1, 1)
        padded = F.pad(images - fill, (self.crop,) * 4)  # the border becomes `fill` below
        rows = down[:, None] + torch.arange(height, device=images.device)  # [N, H]
        columns = right[:, None] + torch.arange(width, device=images.device)  # [N, W]
        sample = torch.arange(n, device=images.device)[:, None, None]
        cropped = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]  # [N, H, W, channels]
        return cropped.permute(0, 3, 1, 2).contiguous() + fill
