"""Models and data to try things on: plain PyTorch modules, real images, nothing that knows about kernels.

Every model is a function of its arguments and `seed`; `MODELS` names them all for configurations and the
command line, `load` reads a data set.

    models  mlp  cnn  resnet  vgg  transformer          (one file per family)
    data    data (load) <- idx, cifar, embedded/        (make_subset chose what is embedded)
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from twophase_fast.zoo.cnn import grouped_cnn, small_cnn, tutorial_cnn
from twophase_fast.zoo.data import SOURCES, Split, load
from twophase_fast.zoo.mlp import mlp
from twophase_fast.zoo.resnet import resnet20
from twophase_fast.zoo.transformer import gpt, vit
from twophase_fast.zoo.vgg import vgg16

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "small_cnn": small_cnn,
    "tutorial_cnn": tutorial_cnn,
    "grouped_cnn": grouped_cnn,
    "resnet20": resnet20,
    "vgg16": vgg16,
    "vit": vit,
    "gpt": gpt,
}

__all__ = [
    "MODELS",
    "SOURCES",
    "Split",
    "load",
    "gpt",
    "grouped_cnn",
    "mlp",
    "resnet20",
    "small_cnn",
    "tutorial_cnn",
    "vgg16",
    "vit",
]
