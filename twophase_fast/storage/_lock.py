"""One writer at a time: an advisory lock that the kernel releases when the process dies, however it dies."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twophase_fast._types import StorageError

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing to lock with
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Lock:
    """Exclusive lock on a file, held from construction to `release`.

    Where the file system has no locks, none is taken.

    Raises:
        StorageError: Another living process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if fcntl is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise StorageError(
                f"{path.parent} is being written by another process, or by a trajectory not closed in this one; "
                "wait for it to end, close it, or write to another file"
            ) from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                self.release()
                raise

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
