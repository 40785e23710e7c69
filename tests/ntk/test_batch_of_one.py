"""Normalisations of a batch of one whose cotangents come in another order in memory."""

import pytest
import torch
from torch import nn

import twophase_fast as tp
from tests.ntk.helpers import error, x
from twophase_fast.ntk import naive_entk

NORMS = {
    "batch": lambda: nn.BatchNorm2d(3),
    "instance": lambda: nn.InstanceNorm2d(3, affine=True),
    "instance_tracked": lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
}


class Tokens(nn.Module):
    """Images to tokens behind a normalisation, as in front of a transformer."""

    def __init__(self, norm, last):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(2, 3, 3), norm, last

    def forward(self, images):
        tokens = self.norm(self.first(images)).flatten(2).transpose(1, 2).flatten(1)
        return self.last(tokens * torch.linspace(0, 1, tokens.shape[1], dtype=tokens.dtype).sin())


def model(norm, linear):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        last = nn.Linear(36, 2) if linear else nn.Unflatten(1, (2, 18))
        return Tokens(NORMS[norm](), last).double().eval()


def value(output):
    return output if output.dim() == 2 else output.sum(2)


def by_pairs(network, images):
    """The kernel from gradients of batches of two, which torch gets right."""
    rows = []
    for image in images:
        y = value(network(torch.stack([image, image])))[0]
        grads = [torch.autograd.grad(one, list(network.parameters()), retain_graph=True) for one in y]
        rows.append(torch.stack([torch.cat([g.flatten() for g in row]) for row in grads]))
    return torch.einsum("ncp,mdp->nmcd", *[torch.stack(rows)] * 2)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_samples_alone(norm, linear):
    network, images = model(norm, linear), x(4, 2, 5, 6)
    truth = by_pairs(network, images)
    for tile in (1, 3, 4):
        assert error(tp.entk(network, images, output_fn=value, tile=tile), truth) < 1e-11, tile
    assert error(tp.entk(network, images[:1], output_fn=value), truth[:1, :1]) < 1e-11
    assert error(naive_entk(network, images, output_fn=value), truth) < 1e-11


def test_entries_are_verified():
    tp.entk(model("batch", True), x(2, 2, 5, 6), verify=4)
