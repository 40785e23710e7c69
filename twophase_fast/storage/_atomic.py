"""Publish a file all at once: temporary name, fsync, rename, fsync of the folder.

HDF5 may crash the interpreter when a write fails inside it (a full disk makes HDF5 2.0 fail again at exit, with a
segmentation fault). So HDF5 writes into a `_Sink`, which remembers the first failure and pretends that
everything went well; the failure is raised once HDF5 has let go of the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import h5py

from twophase_fast._types import StorageError
from twophase_fast.storage import spec


class _Sink(io.RawIOBase):
    """A binary file whose first write error is kept in `error` instead of being raised."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer) -> int | None:
        return self._file.readinto(buffer)

    def flush(self) -> None:
        """Nothing is buffered here; `sync` makes the bytes durable."""

    def truncate(self, size: int | None = None) -> int:
        return self._attempt(lambda: self._file.truncate(size), size or 0)

    def write(self, data) -> int:
        view = memoryview(data).cast("B")
        return self._attempt(lambda: self._write_all(view), len(view))

    def sync(self) -> None:
        if self.error is None:
            self._attempt(self._sync_file, 0)

    def release(self) -> None:
        self._file.close()

    def _sync_file(self) -> int:
        os.fsync(self._file.fileno())
        return 0

    def _write_all(self, view: memoryview) -> int:
        done = 0
        while done < len(view):
            done += self._file.write(view[done:])
        return done

    def _attempt(self, action: Callable[[], int], pretended: int) -> int:
        if self.error is not None:
            return pretended
        try:
            return action()
        except OSError as error:
            self.error = error
            return pretended


def publish(target: Path, fill: Callable[[h5py.File], None], advice: str) -> None:
    """Write an HDF5 file so that `target` is either untouched or complete, and durable on return.

    Args:
        target: Final path; an existing file is replaced by the rename.
        fill: Writes the content into the open file.
        advice: What the user should do if it fails; ends the message.

    Raises:
        StorageError: The file could not be written; `target` is as it was and no temporary file is left.
    """
    temporary = target.with_name(f".{target.name}{spec.TEMPORARY_SUFFIX}")
    try:
        _write(temporary, fill)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error}; {advice}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(temporary: Path, fill: Callable[[h5py.File], None]) -> None:
    sink = _Sink(temporary)
    try:
        with h5py.File(sink, "w", track_order=True) as file:
            fill(file)
        sink.sync()
    except Exception:
        if sink.error is not None:  # HDF5's own complaint after a failed write is only an echo of it
            raise sink.error from None
        raise
    finally:
        sink.release()
    if sink.error is not None:
        raise sink.error


def sync_folder(folder: Path) -> None:
    """Make renames and removals inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
