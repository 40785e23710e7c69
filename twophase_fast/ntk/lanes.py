"""Where captures and Gram blocks run: one after the other, or on two streams of a GPU at the same time.

```
lane capture   tiles of group 0 ──► tiles of group 1 ─────────► tiles of group 2 (when the block of group 0 is done)
                        │ event              │ event
lane gram               └─► block of group 0 └─► block of group 1 ...
```

What a capture made belongs to the other lane from then on: its memory is not used again before the block is done. The
host is never more than one group ahead, so that no more than two groups' factors are held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Protocol

import torch


class Driver(Protocol):
    """What lanes ask of a device; tests record it."""

    def stream(self, name: str) -> Any:
        """Return the stream of a name, always the same: memory that was used on it is kept for it."""

    def current(self) -> Any:
        """Return the stream that work is put on now."""

    def using(self, stream: Any) -> AbstractContextManager[Any]:
        """Put work on a stream inside."""

    def wait(self, stream: Any, other: Any) -> None:
        """Let a stream's further work wait for what is on the other one now."""

    def keep(self, tensor: torch.Tensor, stream: Any) -> None:
        """Do not use a tensor's memory again before what is on a stream when it is let go of is done."""

    def event(self, stream: Any) -> Any:
        """Return an event that has come when what is on a stream now is done."""

    def finish(self, event: Any) -> None:
        """Let the host wait for an event."""


class Cuda:
    """The driver of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: dict[str, torch.cuda.Stream] = {}

    def stream(self, name: str) -> torch.cuda.Stream:
        """Return the stream of a name, always the same: memory that was used on it is kept for it."""
        if name not in self._streams:
            self._streams[name] = torch.cuda.Stream(self._device)
        return self._streams[name]

    def current(self) -> torch.cuda.Stream:
        """Return the stream that work is put on now."""
        return torch.cuda.current_stream(self._device)

    def using(self, stream: torch.cuda.Stream) -> AbstractContextManager[Any]:
        """Put work on a stream inside."""
        return torch.cuda.stream(stream)

    def wait(self, stream: torch.cuda.Stream, other: torch.cuda.Stream) -> None:
        """Let a stream's further work wait for what is on the other one now."""
        stream.wait_stream(other)

    def keep(self, tensor: torch.Tensor, stream: torch.cuda.Stream) -> None:
        """Do not use a tensor's memory again before what is on a stream when it is let go of is done."""
        tensor.record_stream(stream)

    def event(self, stream: torch.cuda.Stream) -> torch.cuda.Event:
        """Return an event that has come when what is on a stream now is done."""
        return stream.record_event()

    def finish(self, event: torch.cuda.Event) -> None:
        """Let the host wait for an event."""
        event.synchronize()


class OneLane:
    """Everything where the caller is."""

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Capture inside."""
        yield

    @contextmanager
    def gram(self, made: Iterable[torch.Tensor] = ()) -> Iterator[None]:
        """Add Gram blocks inside."""
        yield

    def join(self, results: Iterable[torch.Tensor]) -> None:
        """Let the caller have the results."""


class TwoLanes:
    """Captures on one stream, Gram blocks on another.

    Args:
        driver: The device's driver; what the caller has put on its current stream is done first.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver, self._caller = driver, driver.current()
        self._captures, self._grams = driver.stream("captures"), driver.stream("grams")
        self._done: list[Any] = []  # events of the blocks that may be unfinished
        for lane in (self._captures, self._grams):
            driver.wait(lane, self._caller)

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Capture inside, when no more than one block before is unfinished."""
        while len(self._done) > 1:
            self._driver.finish(self._done.pop(0))
        with self._driver.using(self._captures):
            yield

    @contextmanager
    def gram(self, made: Iterable[torch.Tensor] = ()) -> Iterator[None]:
        """Add Gram blocks inside, of what captures have made so far."""
        made = list(made)
        self._driver.wait(self._grams, self._captures)
        for tensor in made:
            self._driver.keep(tensor, self._grams)
        with self._driver.using(self._grams):
            yield
        if made:
            self._done.append(self._driver.event(self._grams))

    def join(self, results: Iterable[torch.Tensor]) -> None:
        """Let the caller have the results."""
        for lane in (self._captures, self._grams):
            self._driver.wait(self._caller, lane)
        for tensor in results:
            self._driver.keep(tensor, self._caller)


Lanes = OneLane | TwoLanes


@cache
def driver_of(device: torch.device) -> Driver:
    """Return the driver of a GPU."""
    return Cuda(device)
