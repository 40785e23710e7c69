"""Write a file all at once: readers see the old one or the whole new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twophase_fast._types import StorageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the name `path` when the block ends without an exception.

    Args:
        path: The file to write; missing folders are made.

    Yields:
        The path to write to, with the same suffix.

    Raises:
        StorageError: The folder or the file cannot be written; an existing file is left as it was.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:
        if temporary.exists():
            temporary.unlink()
