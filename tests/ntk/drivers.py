"""Drivers of streams that are none: one that works as late as it may, one that works at once."""

from collections import deque
from contextlib import contextmanager


class Lazy:
    """A driver whose streams do their work as late as they may: when the host waits for an event.

    `do` puts work on the current stream. Everything that is asked of the driver is in `log`, in order.
    """

    def __init__(self):
        self.queues = {"caller": deque()}
        self.now, self.log, self.kept = "caller", [], []

    def stream(self, name):
        self.queues.setdefault(name, deque())
        return name

    def current(self):
        return self.now

    @contextmanager
    def using(self, stream):
        before, self.now = self.now, stream
        self.log.append(f"on {stream}")
        yield
        self.now = before

    def do(self, work, name=""):
        self.queues[self.now].append(("work", work))
        self.log.append(f"{name} on {self.now}")

    def wait(self, stream, other):
        self.log.append(f"{stream} waits for {other}")
        self.queues[stream].append(("wait", self.event(other)))

    def keep(self, tensor, stream):
        self.log.append(f"kept for {stream}")
        self.kept.append((tensor, stream))

    def event(self, stream):
        event = [False]
        self.queues[stream].append(("event", (event, stream)))
        event.append(stream)
        return event

    def finish(self, event):
        self.log.append("host waits")
        self.run_to(event)

    def run_to(self, event):
        queue = self.queues[event[1]]
        while not event[0]:
            kind, what = queue.popleft()
            if kind == "work":
                what()
            elif kind == "event":
                what[0][0] = True
            elif not what[0]:
                self.run_to(what)


class Eager(Lazy):
    """A driver whose streams work at once, as the CPU that stands in does."""

    def do(self, work, name=""):
        work()
