"""A process of its own that computes on request: one JSON line in, one JSON line out.

The parent starts a `Child` and asks; the child's program calls `serve` with a function that answers. Whatever else the
child prints goes to its standard error.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LAST_LINES = 3  # of standard error, in the message about a child that died


class ChildError(RuntimeError):
    """The child died, or said that it failed."""


class TooSlowError(ChildError):
    """The child did not answer in time; it was ended."""


class Child:
    """A running child process.

    Args:
        command: What to start; its working folder is the repository.
        environment: Variables set on top of this process's.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 closed with the child
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, seconds: float | None = None, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            TooSlowError: No answer within `seconds`.
            ChildError: The child ended, or answered with an error.
        """
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(self._last_words()) from None
        line = self._line(seconds)
        if not line:
            raise ChildError(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer

    def close(self) -> None:
        """End the child, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            try:
                stream.close()
            except BrokenPipeError:  # a request that the child never read
                continue

    def _line(self, seconds: float | None) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                self.close()
                raise TooSlowError(f"no answer within {seconds:g} s")
        return self._process.stdout.readline()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()[-LAST_LINES:]
        return f"the child ended with code {code}: {' / '.join(lines) or 'no message'}"


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer every line of standard input, until it ends; an exception becomes an answer with `error`."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not be taken for an answer
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
