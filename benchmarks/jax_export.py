"""Writes a model of the zoo, with its inputs, for the JAX side: a list of layers and the arrays they use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from twophase_fast.zoo.cnn import GlobalMean
from twophase_fast.zoo.resnet import BasicBlock
from twophase_fast.zoo.transformer import ViT

Layers = list[list[Any]]


class NotExportableError(NotImplementedError):
    """The model has a module that the JAX side does not know."""


def export(model: nn.Module, x: torch.Tensor, path: Path) -> None:
    """Write layers, parameters, constants and inputs to an `.npz` in the layouts of `jax_side.models`.

    Raises:
        NotExportableError: The model has a module that the JAX side does not know.
    """
    layers = describe(model)
    arrays = {f"parameter:{name}": _transposed(name, p.detach()) for name, p in model.named_parameters()}
    arrays |= {f"constant:{name}": value for name, value in _constants(model).items()}
    inputs = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
    np.savez(path, layers=json.dumps(layers), inputs=inputs.contiguous().numpy(), **arrays)


def describe(module: nn.Module, name: str = "") -> Layers:
    """Return the layers of a module as `[kind, *arguments]`.

    Raises:
        NotExportableError: It has a module that the JAX side does not know.
    """
    if isinstance(module, nn.Sequential):
        return [layer for key, child in module.named_children() for layer in describe(child, _joined(name, key))]
    if type(module) in DESCRIPTIONS:
        return DESCRIPTIONS[type(module)](module, name)
    raise NotExportableError(f"{type(module).__name__} is not written for JAX")


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _conv(module: nn.Conv2d, name: str) -> Layers:
    one = {module.stride[0] - module.stride[1], module.padding[0] - module.padding[1]} == {0}
    if not one or module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros":
        raise NotExportableError(f"{module} is not written for JAX")
    return [["conv", name, module.stride[0], module.padding[0]]]


def _max_pool(module: nn.MaxPool2d, _: str) -> Layers:
    if module.stride != module.kernel_size or module.padding or module.ceil_mode:
        raise NotExportableError(f"{module} is not written for JAX")
    return [["max_pool", module.kernel_size]]


def _block(module: BasicBlock, name: str) -> Layers:
    inner = [
        *describe(module.conv1, f"{name}.conv1"),
        *describe(module.bn1, f"{name}.bn1"),
        ["relu"],
        *describe(module.conv2, f"{name}.conv2"),
        *describe(module.bn2, f"{name}.bn2"),
    ]
    return [["block", inner, module.stride, module.new_channels]]


def _vit(module: ViT, name: str) -> Layers:
    layers = [_joined(name, f"layers.{key}") for key, _ in module.layers.named_children()]
    embed = ["conv", _joined(name, "embed"), module.embed.stride[0], 0]
    body = ["vit", layers, module.layers[0].attention.heads, module.norm.eps]
    return [embed, body, ["linear", _joined(name, "readout")]]


DESCRIPTIONS: dict[type[nn.Module], Any] = {
    nn.Linear: lambda _, name: [["linear", name]],
    nn.Conv2d: _conv,
    nn.BatchNorm2d: lambda _, name: [["batch_norm", name]],
    nn.ReLU: lambda *_: [["relu"]],
    nn.MaxPool2d: _max_pool,
    nn.Flatten: lambda *_: [["flatten"]],
    GlobalMean: lambda *_: [["global_mean"]],
    BasicBlock: _block,
    ViT: _vit,
}


def _transposed(name: str, parameter: torch.Tensor) -> np.ndarray:
    """Weights of linear maps as [d, p], of convolutions as [height, width, in, out]; the rest as it is."""
    if name.endswith("weight") and parameter.ndim == 2:
        parameter = parameter.T
    if parameter.ndim == 4:
        parameter = parameter.permute(2, 3, 1, 0)
    return parameter.contiguous().numpy()


def _constants(model: nn.Module) -> dict[str, np.ndarray]:
    """What BatchNorm in evaluation mode subtracts and multiplies by."""
    constants = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            constants[f"{name}.mean"] = module.running_mean.numpy()
            constants[f"{name}.inverse_std"] = (module.running_var + module.eps).rsqrt().numpy()
    return constants
