"""Inputs and outputs of every kind, and what may happen between them."""

from __future__ import annotations

import torch
from torch import nn

from twophase_fast._model_cases._build import Apply, case, inputs, parameter


@case
def scalar_output():
    return Apply(lambda s, x: s.a(x).tanh().sum(1), a=nn.Linear(5, 4)), inputs(4, 5)


@case
def tuple_input():
    return Apply(lambda s, x, y: s.a(x) * s.b(y), a=nn.Linear(5, 3), b=nn.Linear(4, 3)), (inputs(4, 5), inputs(4, 4))


@case
def dict_input():
    model = Apply(lambda s, left, right: s.a(left) * s.b(right), a=nn.Linear(5, 3), b=nn.Linear(4, 3))
    return model, {"left": inputs(4, 5), "right": inputs(4, 4)}


@case
def output_fn_and_targets():
    """The output is the log-probability of each sample's target."""

    def margin(logits, targets):
        picked = logits.gather(1, targets[:, None]).squeeze(1)
        return picked - logits.logsumexp(1)

    options = {"output_fn": margin, "targets": torch.tensor([0, 2, 1, 0])}
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), inputs(4, 5), options


@case
def frozen_and_unused():
    """A layer that takes no gradient, and a parameter that nothing reads."""
    frozen = nn.Linear(5, 5)
    frozen.requires_grad_(False)
    return Apply(
        lambda s, x: s.b(s.a(s.f(x)).tanh()), a=nn.Linear(5, 5), b=nn.Linear(5, 3), f=frozen, z=parameter(3)
    ), inputs(4, 5)


@case
def checkpointed():
    """Inner layers are computed again in the backward pass."""

    def run(s, x):
        inner = torch.utils.checkpoint.checkpoint(lambda h: s.b(s.a(h).tanh()).tanh(), x, use_reentrant=False)
        return s.c(inner)

    return Apply(run, a=nn.Linear(5, 6), b=nn.Linear(6, 6), c=nn.Linear(6, 3)), inputs(4, 5)


@case
def flipped_samples_inside():
    """Samples change places inside, and back."""

    def run(s, x):
        return s.b(s.a(x.flip(0)).tanh().flip(0))

    return Apply(run, a=nn.Linear(5, 6), b=nn.Linear(6, 3)), inputs(4, 5)


@case
def routed_experts():
    """Each sample goes through the one of two experts that a router picks, and is scaled by its probability."""

    def run(s, x):
        choice = s.r(x).argmax(1)
        out = x.new_zeros(x.shape[0], 3)
        for k, expert in enumerate((s.e0, s.e1)):
            rows = (choice == k).nonzero().squeeze(1)
            out = out.index_add(0, rows, expert(x[rows]))
        return out * s.r(x).softmax(1).max(1, keepdim=True).values

    parts = {f"e{k}": nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)) for k in range(2)}
    return Apply(run, r=nn.Linear(5, 2), **parts), inputs(6, 5)
