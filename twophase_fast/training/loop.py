"""The training loop: a protocol anybody's loop can follow, and one loop that follows it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from twophase_fast._types import InputError, TwoPhaseError
from twophase_fast.training.augmentation import FlipCrop
from twophase_fast.training.noise import BatchOrder, generator_for, seeded_rng

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[[torch.optim.Optimizer], Any]


class DivergedError(TwoPhaseError, ArithmeticError):
    """The loss became NaN or infinite; the message names step and seed."""


@runtime_checkable
class StepLoop(Protocol):
    """What can be branched: any object with these four.

    `step(i)` performs update i, counted from 0, and returns the loss of its batch; everything random in it must
    be a function of i (and of the loop's own seed). `state_dict()` holds all that later steps depend on (weights,
    buffers, optimizer, scheduler, gradient scaler) and `load_state_dict()` brings it back.
    """

    model: nn.Module

    def step(self, i: int) -> float:
        """Perform update i and return its loss."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything later steps depend on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class SupervisedLoop:
    """Minibatch training on (inputs, targets), every draw a function of (seed, step).

    Args:
        model: Trained in place; put in train mode at every step.
        data: Inputs [n, ...] and targets [n, ...] on any device; moved to the model's.
        seed: Of data order, augmentation and dropout.
        optimizer: Function from the list of trainable parameters to a torch optimizer.
        scheduler: Function from the optimizer to a learning-rate scheduler stepped after every update, or None.
        loss_fn: Function of (outputs, targets) to a scalar, averaged over the batch.
        batch_size: Samples per step.
        augmentation: Applied to each batch, or None.
        learning_rate: Replaces the learning rate of every parameter group before the scheduler is made; None
            leaves the optimizer's own.

    Raises:
        InputError: Inputs and targets differ in length, the batch does not fit, or no parameter requires grad.
    """

    def __init__(
        self,
        model: nn.Module,
        data: tuple[torch.Tensor, torch.Tensor],
        *,
        seed: int,
        optimizer: OptimizerFactory,
        loss_fn: LossFunction,
        batch_size: int,
        scheduler: SchedulerFactory | None = None,
        augmentation: FlipCrop | None = None,
        learning_rate: float | None = None,
    ) -> None:
        inputs, targets = data
        if len(inputs) != len(targets):
            raise InputError(f"training data have {len(inputs)} inputs but {len(targets)} targets")
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise InputError("the model has no parameter that requires grad; there is nothing to train")
        self.model, self.seed, self._done = model, seed, 0
        self._device = parameters[0].device
        self._inputs, self._targets = inputs.to(self._device), targets.to(self._device)
        self._order = BatchOrder(len(inputs), batch_size, seed)
        self._loss_fn, self._augmentation = loss_fn, augmentation
        self.optimizer = optimizer(parameters)
        if learning_rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
        self.scheduler = scheduler(self.optimizer) if scheduler else None

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every sample was seen once (but for an incomplete last batch)."""
        return self._order.steps_per_epoch

    @property
    def steps_done(self) -> int:
        """Updates performed so far; the next one is `step(steps_done)`."""
        return self._done

    @property
    def learning_rate(self) -> float:
        """Learning rate of the first parameter group for the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def batch(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the augmented inputs and the targets of step i."""
        index = self._order.indices(i).to(self._device)
        inputs, targets = self._inputs[index], self._targets[index]
        if self._augmentation is not None:
            inputs = self._augmentation(inputs, generator_for(self.seed, i, "augmentation"))
        return inputs, targets

    def step(self, i: int) -> float:
        """Perform update i and return the loss of its batch before the update.

        Raises:
            InputError: i is not the next step.
            DivergedError: The loss is NaN or infinite; the weights are left as they were before this step.
        """
        if i != self._done:
            raise InputError(
                f"step({i}) was asked for, but {self._done} steps are done: the next is step({self._done})"
            )
        inputs, targets = self.batch(i)
        self.model.train()
        with seeded_rng(self._device, self.seed, i, "step"):
            loss = self._loss_fn(self.model(inputs), targets)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise DivergedError(
                    f"the loss is {value} at step {i} of seed {self.seed} (learning rate {self.learning_rate:g}); "
                    "lower the learning rate or look at the data"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        self._done = i + 1
        return value

    def gradient(self, i: int) -> list[torch.Tensor]:
        """Return the gradient of step i's batch loss at the present weights, one tensor per trainable parameter.

        Nothing changes: neither weights, nor buffers, nor the `.grad` fields, nor the random state.
        """
        parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        inputs, targets = self.batch(i)
        self.model.train()
        with seeded_rng(self._device, self.seed, i, "step"):
            outputs = torch.func.functional_call(self.model, {**parameters, **buffers}, (inputs,))
            return list(torch.autograd.grad(self._loss_fn(outputs, targets), list(parameters.values())))

    def state_dict(self) -> dict[str, Any]:
        """Return weights, buffers, optimizer, scheduler and the number of steps done."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "steps_done": self._done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; tensors in `state` may be shared afterwards."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self._done = state["steps_done"]
