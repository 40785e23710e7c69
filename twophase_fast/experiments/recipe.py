"""How a trunk is trained: model, data, optimizer, loss; the same for every trunk but for seed and learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from twophase_fast._types import InputError, Inputs, TwoPhaseError
from twophase_fast.experiments.plan import TrunkName
from twophase_fast.training import FlipCrop, SupervisedLoop, seeded_rng
from twophase_fast.training._modes import eval_mode
from twophase_fast.training.loop import LossFunction, OptimizerFactory, SchedulerFactory

ModelFactory = Callable[..., nn.Module]
Pair = tuple[torch.Tensor, torch.Tensor]
_BATCH = 500


@dataclass(frozen=True)
class Recipe:
    """Everything a trunk is made from.

    Attributes:
        model_factory: Called as `factory(seed=k)` where it takes a seed, else as `factory()` under a seeded generator.
        train: Training inputs and targets.
        test: Test inputs and targets.
        probe: Probe set of the kernels.
        optimizer: From a list of parameters to an optimizer.
        scheduler: From an optimizer to a scheduler, or None.
        loss_fn: (outputs, targets) -> mean loss.
        batch_size: Samples per step.
        augmentation: Of training batches, or None.
    """

    model_factory: ModelFactory
    train: Pair
    test: Pair
    probe: Inputs
    optimizer: OptimizerFactory
    scheduler: SchedulerFactory | None
    loss_fn: LossFunction
    batch_size: int
    augmentation: FlipCrop | None = None

    def loop(self, trunk: TrunkName) -> SupervisedLoop:
        """Make the untrained loop of a trunk."""
        return SupervisedLoop(
            make_model(self.model_factory, trunk.seed),
            self.train,
            seed=trunk.seed,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            loss_fn=self.loss_fn,
            batch_size=self.batch_size,
            augmentation=self.augmentation,
            learning_rate=trunk.learning_rate,
        )

    def placed(self, trunk: TrunkName) -> Recipe:
        """Return the recipe with data and probe set on the model's device.

        Raises:
            InputError: A trunk cannot be made, or its model and the loss do not take the data.
        """
        model = self.loop(trunk).model
        self._check_fits(model)
        device = next(model.parameters()).device
        moved = {
            name: tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), getattr(self, name))
            for name in ("train", "test", "probe")
        }
        return replace(self, **moved)

    def _check_fits(self, model: nn.Module) -> None:
        inputs, targets = self.test
        try:
            outputs = predict(model, inputs[:2])
            self.loss_fn(outputs, targets[:2].to(outputs.device))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise InputError(
                f"the model and the loss cannot take the data (inputs {tuple(inputs.shape[1:])} {inputs.dtype}, "
                f"targets {targets.dtype}): {error}"
            ) from error


def make_model(factory: ModelFactory, seed: int) -> nn.Module:
    """Build the model of a seed: its weights depend on the seed alone.

    Raises:
        InputError: The factory raised, or returned something else than a module.
        TwoPhaseError: One of the package's own, as the factory raised it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with seeded_rng(device, seed, "initialisation"):
        seeds = {"seed": seed} if "seed" in inspect.signature(factory).parameters else {}
        try:
            model = factory(**seeds)
        except TwoPhaseError:
            raise
        except Exception as error:
            raise InputError(f"the model factory raised {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"the model factory returned a {type(model).__name__}; expected a torch.nn.Module")
    return model


def as_pair(name: str, data: Pair | torch.utils.data.TensorDataset) -> Pair:
    """Return data as (inputs, targets).

    Raises:
        InputError: Neither a pair of tensors nor a TensorDataset of two, no samples, or lengths differ.
    """
    parts = data.tensors if isinstance(data, torch.utils.data.TensorDataset) else data
    if not (isinstance(parts, tuple) and len(parts) == 2 and all(isinstance(part, torch.Tensor) for part in parts)):
        raise InputError(f"{name} is a {type(data).__name__}; expected (inputs, targets) or a TensorDataset of the two")
    inputs, targets = parts
    if not len(inputs) or len(inputs) != len(targets):
        raise InputError(f"{name} has {len(inputs)} inputs and {len(targets)} targets; expected as many, at least one")
    return inputs, targets


def predict(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Return a model's outputs in eval mode, without gradients and without a trace in the model."""
    device = next(model.parameters()).device
    with eval_mode(model), torch.no_grad():
        return torch.cat([model(piece.to(device)) for piece in inputs.split(_BATCH)])
