import pytest
import torch
from torch import nn

from twophase_fast.training import SupervisedLoop


def make_data(n=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 6, 6, generator=generator), torch.randint(3, (n,), generator=generator)


class Net(nn.Module):
    """Everything that holds state or draws: BatchNorm, dropout, momentum is in the optimizer."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(64, 3)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.conv(x)).relu().flatten(1)))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-4)


def schedule(optimizer):
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 7], 0.5)


def make_loop(model=None, *, seed=5, optimizer=sgd, scheduler=schedule, batch_size=8, **kwargs):
    if model is None:
        torch.manual_seed(0)
        model = Net()
    return SupervisedLoop(
        model,
        make_data(),
        seed=seed,
        optimizer=optimizer,
        scheduler=scheduler,
        loss_fn=nn.functional.cross_entropy,
        batch_size=batch_size,
        **kwargs,
    )


def run_until(loop, stop):
    for i in range(loop.steps_done, stop):
        loop.step(i)
    return loop


def all_weights(loop):
    """All of the model's state as one vector, for comparing bits."""
    return torch.cat([t.detach().double().flatten() for t in loop.model.state_dict().values()])


@pytest.fixture
def data():
    return make_data


@pytest.fixture
def build():
    return make_loop


@pytest.fixture
def run():
    return run_until


@pytest.fixture
def weights():
    return all_weights


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()
