"""Everything random in training is a function of (seed, step): which batch, which crop, which units drop out.

Twin runs share these draws by construction, whenever they were spawned and in whatever order they are computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from twophase_fast._types import InputError


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that is a function of `parts` alone, the same on every machine and version.

    Args:
        parts: What the draw is for, such as `(seed, step, "dropout")`.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@contextmanager
def seeded_rng(device: torch.device, *parts: int | str) -> Iterator[None]:
    """Seed torch's global generators of the CPU and of `device` inside the block, and restore them after it.

    What reads the global generators, dropout above all, then depends on `parts` alone.
    """
    devices = [device] if device.type == "cuda" else []
    seed = derive_seed(*parts)
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        for entry in devices:
            with torch.cuda.device(entry):
                torch.cuda.manual_seed(seed)
        yield


class BatchOrder:
    """Which samples form the batch of each step: a new permutation per epoch, the incomplete batch left out.

    Attributes:
        steps_per_epoch: Batches per epoch, floor(samples / batch_size).
    """

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        if not 1 <= batch_size <= samples:
            raise InputError(f"batch_size is {batch_size}; it must lie between 1 and the {samples} training samples")
        self.steps_per_epoch = samples // batch_size
        self._samples, self._batch_size, self._seed = samples, batch_size, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def indices(self, step: int) -> torch.Tensor:
        """Return the sample indices of a step's batch, int64 [batch_size]."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = generator_for(self._seed, epoch, "order")
            self._epoch, self._order = epoch, torch.randperm(self._samples, generator=generator)
        start = position * self._batch_size
        return self._order[start : start + self._batch_size]
