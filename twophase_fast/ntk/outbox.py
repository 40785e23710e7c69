"""Finished blocks on their way to the host: copied to pinned memory on a stream of their own, beside the next block.

Two buffers take turns. A buffer is written again only when its block was handed over, and it is handed over when its
copy has come; the block's own memory is kept until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from twophase_fast.ntk.lanes import Driver, driver_of

BUFFERS = 2

Deliver = Callable[[torch.Tensor], None]
"""Takes a block on the host; its memory is used again when this returns."""


@dataclass(frozen=True)
class _Parcel:
    """A block under way, in the memory of one of the buffers."""

    slot: int
    memory: torch.Tensor
    event: Any
    deliver: Deliver


class Outbox:
    """Sends blocks to the host.

    Args:
        device: Where blocks are computed.
        driver: The device's driver.
        pinned: Returns memory for so many elements that a GPU can copy to.
    """

    def __init__(
        self,
        device: torch.device,
        driver: Driver | None = None,
        pinned: Callable[[int, torch.dtype], torch.Tensor] | None = None,
    ) -> None:
        self._driver: Driver = driver or driver_of(device)
        self._pinned = pinned or (lambda count, dtype: torch.empty(count, dtype=dtype, pin_memory=True))
        self._copies = self._driver.stream("copies")
        self._buffers: list[torch.Tensor | None] = [None] * BUFFERS
        self._sent = 0
        self._under_way: deque[_Parcel] = deque()

    def send(self, block: torch.Tensor, deliver: Deliver) -> None:
        """Send a block that the current stream computes, and hand over those sent before it."""
        slot = self._sent % BUFFERS
        while any(parcel.slot == slot for parcel in self._under_way):
            self._hand_over()
        memory = self._memory(slot, block)
        self._driver.wait(self._copies, self._driver.current())
        with self._driver.using(self._copies):
            memory.copy_(block, non_blocking=True)
        self._driver.keep(block, self._copies)
        self._under_way.append(_Parcel(slot, memory, self._driver.event(self._copies), deliver))
        self._sent += 1
        while len(self._under_way) >= BUFFERS:
            self._hand_over()

    def empty(self) -> None:
        """Hand over everything that is under way."""
        while self._under_way:
            self._hand_over()

    def _hand_over(self) -> None:
        """Wait for the oldest block's copy and hand it over; only then its buffer is free."""
        parcel = self._under_way[0]
        self._driver.finish(parcel.event)
        parcel.deliver(parcel.memory)
        self._under_way.popleft()

    def _memory(self, slot: int, block: torch.Tensor) -> torch.Tensor:
        """Return a buffer's memory in the shape of a block."""
        buffer = self._buffers[slot]
        if buffer is None or buffer.numel() < block.numel() or buffer.dtype != block.dtype:
            buffer = self._buffers[slot] = self._pinned(block.numel(), block.dtype)
        return buffer[: block.numel()].view(block.shape)


class Handover:
    """Hands blocks over at once: they are where they are wanted, or there is no GPU to wait for."""

    def send(self, block: torch.Tensor, deliver: Deliver) -> None:
        """Hand a block over."""
        deliver(block)

    def empty(self) -> None:
        """Do nothing: nothing is under way."""
