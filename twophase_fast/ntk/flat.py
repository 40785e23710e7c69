"""Directions in parameter space: one flat vector, or a Tensor per parameter."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from twophase_fast._types import InputError


class FlatParameters:
    """The order of the selected parameters in a flat vector [P]: as in `model.named_parameters()`, row-major.

    Args:
        parameters: Selected parameters by name.
        dtype: Dtype of flat vectors.
        device: Device of flat vectors.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], *, dtype: torch.dtype, device: torch.device) -> None:
        self.shapes = {name: p.shape for name, p in parameters.items()}
        self.dtype, self.device = dtype, device

    @property
    def size(self) -> int:
        """Number of entries P."""
        return sum(shape.numel() for shape in self.shapes.values())

    def views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return name -> the part of `flat` [P] that belongs to it, in the parameter's shape (views)."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts)}

    def flatten(self, direction: torch.Tensor | Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return a direction as a flat vector [P]; parameters that a mapping leaves out get zeros.

        Raises:
            InputError: Unknown names, or a wrong shape or type.
        """
        if isinstance(direction, torch.Tensor):
            if direction.shape != (self.size,):
                raise InputError(
                    f"the direction has shape {tuple(direction.shape)}; expected a flat vector ({self.size},) over the "
                    f"{len(self.shapes)} selected parameters, or a dict name -> Tensor"
                )
            return direction.detach().to(self.device, self.dtype)
        if not isinstance(direction, Mapping):
            raise InputError(
                f"the direction is a {type(direction).__name__}; expected a flat Tensor or a dict of Tensors"
            )
        flat = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        views = self.views(flat)
        for name, value in direction.items():
            if name not in views:
                raise InputError(f"{name!r} is not among the selected parameters ({', '.join(list(views)[:6])}, ...)")
            if value.shape != views[name].shape:
                raise InputError(
                    f"the direction of {name!r} has shape {tuple(value.shape)}; expected {tuple(views[name].shape)}"
                )
            views[name].copy_(value.detach())
        return flat
