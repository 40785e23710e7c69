"""The decorator of every Triton function here: compiled on GPU tensors, interpreted on CPU tensors.

`triton.jit` decides at import, by `TRITON_INTERPRET`, whether a function is compiled or interpreted. Here one object
does both, so that one process can interpret a kernel, compile it ahead of time and launch it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from triton.runtime.jit import JITFunction

from twophase_fast.ops._triton import interpreter


class Kernel(JITFunction):
    """A Triton function: a kernel, or a helper that kernels call.

    `kernel[grid](*args, num_warps=..., num_stages=..., CONSTANT=...)` launches it: under the interpreter if a tensor is
    on the CPU, compiled otherwise.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as the helper of a kernel that is being interpreted."""
        if not interpreter.active():
            return super().__call__(*args, **kwargs)
        return interpreter.rewritten(self.fn)(*args, **kwargs)

    def run(self, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        """Launch on the device of the tensors, which need not be the current one; `kernel[grid](...)` comes here."""
        device = _device((*args, *kwargs.values()))
        if device.type == "cpu":
            return interpreter.run(self.fn, self.arg_names, grid, args, kwargs)
        with torch.cuda.device(device):
            return super().run(*args, grid=grid, warmup=warmup, **kwargs)


def kernel(function: Callable[..., Any]) -> Kernel:
    """Make a Triton function of `function`."""
    return Kernel(function)


def _device(values: tuple[Any, ...]) -> torch.device:
    """Return the device of the first tensor; the public functions have checked that all share it."""
    return next(value.device for value in values if isinstance(value, torch.Tensor))
