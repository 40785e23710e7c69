"""What the engine refuses, and what it puts back.

A kernel is exact only for a deterministic function applied to each sample on its own. Models that break this are
refused by name with the remedy. Whatever the engine touches on the way (random generators, buffers, precision
switches) is restored, also after an exception.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from twophase_fast._types import InputError, UnsupportedModelError
from twophase_fast.ops._ieee import Switch, ieee_float32, ieee_switches, switched

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
_EVAL = "call model.eval() first, or only on that module"


def check_model(model: nn.Module) -> None:
    """Refuse models whose kernel is not defined sample by sample.

    Raises:
        InputError: Not an `nn.Module`, parameters without values, or autocast or inference mode is active.
        UnsupportedModelError: Batch normalisation over the batch, or active dropout.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}; a torch.nn.Module is expected")
    if torch.is_inference_mode_enabled():
        raise InputError(
            "torch.inference_mode is active, which records no graph; leave its block (no_grad does no harm)"
        )
    _check_values(model)
    device_type = next((p.device.type for p in model.parameters()), "cpu")
    if torch.is_autocast_enabled(device_type):
        raise InputError("autocast is active, which changes the function's precision; leave the autocast block first")
    for name, module in model.named_modules():
        _check_module(name or type(model).__name__, module)


def _check_values(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedTensorMixin):
            raise InputError(f"parameter {name!r} is not initialised yet; call the model once on a batch first")
        if parameter.is_meta and type(parameter) is nn.Parameter:  # a subclass may hold its values elsewhere
            raise InputError(f"parameter {name!r} is on the meta device and has no values; load the weights first")


def _check_module(name: str, module: nn.Module) -> None:
    label = f"{name!r} ({type(module).__name__})"
    if isinstance(module, _BATCH_NORMS) and (module.training or module.running_mean is None):
        why = "is in training mode" if module.training else "keeps no running statistics"
        remedy = _EVAL if module.training else "build it with track_running_stats=True"
        raise UnsupportedModelError(f"{label} {why}: it normalises over the batch and mixes samples; {remedy}")
    if module.training and _dropout_probability(module) > 0:
        raise UnsupportedModelError(f"{label} is active dropout: the function is random; {_EVAL}")


def _dropout_probability(module: nn.Module) -> float:
    if isinstance(module, _DROPOUTS):
        return module.p
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return module.dropout
    return 0.0


def check_nodes(names: Iterable[str]) -> None:
    """Refuse nodes that are random, by name, where no module told.

    Raises:
        UnsupportedModelError: Functional dropout is active.
    """
    for name in names:
        if "Dropout" in name:
            remedy = "pass training=self.training and call model.eval()"
            raise UnsupportedModelError(f"{name}: functional dropout is active, so the function is random; {remedy}")


@contextmanager
def preserved(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore random generators, buffers and precision switches on leaving, whatever happened inside."""
    buffers = {name: (buffer, buffer._version, buffer.clone()) for name, buffer in model.named_buffers()}
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), ieee_float32(), switched(_switches(model, device)):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        with torch.no_grad():
            for buffer, version, copy in buffers.values():
                if buffer._version != version:
                    buffer.copy_(copy)


@contextmanager
def deterministic_forward(device: torch.device) -> Iterator[None]:
    """Refuse a forward pass that draws random numbers.

    Raises:
        UnsupportedModelError: The generator moved during the block.
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        yield  # the generator may not be asked; the block ran before, outside of the graph
        return
    before = _generator_state(device)
    yield
    if not torch.equal(before, _generator_state(device)):
        raise UnsupportedModelError(
            "the forward pass drew random numbers (functional dropout or noise?): the function is random and has no "
            "kernel; call model.eval(), and pass training=self.training to functional dropout"
        )


def _generator_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _switches(model: nn.Module, device: torch.device) -> list[Switch]:
    """Return the switches of everything of torch's that a kernel needs otherwise.

    On a GPU cuDNN's algorithms must repeat to the bit: samples are told apart by that. Its RNNs have no backward in
    evaluation mode, so that a model with one runs on torch's own.
    """
    switches = ieee_switches("matmul", "conv", "rnn")
    if device.type == "cuda":
        cudnn = torch.backends.cudnn
        switches += [(cudnn, "deterministic", True), (cudnn, "benchmark", False)]
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            switches.append((cudnn, "enabled", False))
    return switches
