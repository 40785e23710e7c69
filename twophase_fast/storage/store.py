"""The files of one trajectory: which there are, publishing a part, packing them all into one.

A run is `run.h5` (packed), `run.h5.parts/` (while it is written) or both (a packed run that is being extended, or an
older run that a new one will overwrite when it closes). The run identifier in every file tells these apart.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from twophase_fast._types import StorageError
from twophase_fast.storage import spec
from twophase_fast.storage._atomic import publish, sync_folder
from twophase_fast.storage._lock import Lock
from twophase_fast.storage.content import Contents, Header
from twophase_fast.storage.merge import merged
from twophase_fast.storage.reader import Index, read_header, scan
from twophase_fast.storage.writer import write_file

_REPLACED = ".replaced-"  # marks the parts of an unfinished run that is being overwritten


class Store:
    """Index of a trajectory's files and, when writing, the way to add to them.

    Attributes:
        path: The packed file, whether or not it exists yet.
        index: What the files hold.
        writing: Parts can be published.
    """

    def __init__(self, path: Path, index: Index, header: Header | None = None, lock: Lock | None = None) -> None:
        self.path, self.index, self._header, self._lock = path, index, header, lock
        self._session = uuid.uuid4().hex[:8]
        self._sequence = max((part_number(part.name) for part in parts_of(path)), default=0)

    @property
    def writing(self) -> bool:
        """Whether this store can publish."""
        return self._header is not None

    @classmethod
    def open(cls, path: Path) -> Store:
        """Index the files of a run for reading; `path` is the packed file or the folder of parts."""
        base = path.with_name(path.name.removesuffix(spec.PARTS_SUFFIX))
        files = _files_of_run(base, prefer_folder=path != base)
        return cls(base, _indexed(files))

    @classmethod
    def create(cls, path: Path, header: Header, overwrite: bool) -> Store:
        """Start a run: make the folder of parts and publish the first, which carries the header."""
        _refuse_to_replace(path, overwrite)
        replaces = path.exists() or bool(parts_of(path))
        folder, lock, aside = folder_of(path), _locked_folder(folder_of(path)), None
        if parts_of(path):
            lock, aside = _set_aside(folder, lock)
        store = cls(path, Index(), replace(header, overwrites=replaces), lock)
        try:
            store.publish({})
        except BaseException:
            store.abandon()
            if aside is not None:
                aside.rename(folder)
            raise
        return store

    @classmethod
    def append_to(cls, path: Path, header: Header) -> Store:
        """Go on writing a run that was cut off or closed; `header` gives this session's provenance."""
        _files_of_run(path, prefer_folder=True)  # refuses where there is nothing, before anything is made
        lock = _locked_folder(folder_of(path))
        try:
            _remove(folder_of(path).glob(f".*{spec.TEMPORARY_SUFFIX}"))
            files = _files_of_run(path, prefer_folder=True)
            first = read_header(files[-1])
            index = _indexed(files)
        except BaseException:
            _leave(folder_of(path), lock)
            raise
        ours = replace(header, run_id=first.run_id, overwrites=first.overwrites, keep=first.keep)
        return cls(path, index, replace(ours, references=first.references), lock)

    def publish(self, contents: Contents) -> None:
        """Make contents durable as one more part, and add them to the index.

        Raises:
            StorageError: Nothing of `contents` was written; everything published before is untouched.
        """
        assert self._header is not None
        folder = folder_of(self.path)
        name = f"{self._sequence + 1:08d}-{self._session}{spec.PART_FILE_SUFFIX}"
        header = replace(self._header, part=name)
        advice = f"everything stored before is safe in {folder}; make room (or correct the cause) and try again"
        publish(folder / name, lambda file: write_file(file, header, contents), advice)
        self._sequence += 1
        self._header = replace(self._header, config=None, provenance=[], probe=None)
        scan(folder / name, self.index)

    def pack(self) -> None:
        """Pack all parts into one file, then remove them; ends writing.

        Raises:
            StorageError: The packed file could not be written (the parts are untouched), or they could not be removed.
        """
        assert self._header is not None
        folder, parts = folder_of(self.path), parts_of(self.path)
        if _files_of_run(self.path, prefer_folder=True) != [self.path]:
            header, contents = merged(self.index, self._header, parts)
            advice = f"the run is safe in {folder}; make room and pack it with Trajectory.append_to(...).close()"
            publish(self.path, lambda file: write_file(file, header, contents), advice)
        try:
            _remove(parts)
            for old in _set_aside_folders(self.path) if self._header.overwrites else ():
                shutil.rmtree(old)
            self.abandon()
            sync_folder(self.path.parent)
        except OSError as error:
            raise StorageError(
                f"{self.path} is complete, but {folder} could not be removed: {error}; delete it"
            ) from error
        self.index = _indexed([self.path])

    def abandon(self) -> None:
        """Stop writing and leave the parts as they are; a folder without parts goes."""
        self._header = None
        if self._lock is not None:
            _leave(folder_of(self.path), self._lock)
            self._lock = None


def folder_of(path: Path) -> Path:
    """Folder that holds the parts of the run that will be packed as `path`."""
    return path.with_name(path.name + spec.PARTS_SUFFIX)


def parts_of(path: Path) -> list[Path]:
    """Published parts in the order they were written."""
    return sorted(folder_of(path).glob(f"*{spec.PART_FILE_SUFFIX}"))


def _files_of_run(path: Path, prefer_folder: bool) -> list[Path]:
    """Files to read, packed one first. Where two runs meet, the folder's or the packed one's, as asked.

    Raises:
        StorageError: Nothing is there, or two unrelated runs are.
    """
    parts = parts_of(path)
    if not path.exists():
        if not parts:
            older = [str(folder) for folder in _set_aside_folders(path)]
            hint = f"; an unfinished older run lies in {', '.join(older)}" if older else ""
            raise StorageError(
                f"there is no trajectory at {path}: neither the file nor parts in {folder_of(path)}{hint}"
            )
        return parts
    if not parts:
        return [path]
    packed, newest = read_header(path), read_header(parts[-1])
    if packed.run_id == newest.run_id:
        return [path, *(part for part in parts if part.name not in packed.packed_parts)]
    if not newest.overwrites:
        raise StorageError(
            f"{path} and {folder_of(path)} belong to different runs; move one of them away and open it by itself"
        )
    return parts if prefer_folder else [path]


def _indexed(files: Iterable[Path]) -> Index:
    index = Index()
    for file in files:
        scan(file, index)
    return index


def _refuse_to_replace(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise StorageError(f"{path} is a folder; give the name of a file to write")
    if overwrite:
        return
    if path.exists():
        raise StorageError(
            f"{path} exists; choose another name, go on with append_to, or pass overwrite=True "
            "(it is replaced only when the new run is closed)"
        )
    if parts_of(path):
        raise StorageError(
            f"{folder_of(path)} holds an unfinished run; go on with append_to, or pass overwrite=True to start anew"
        )


def _locked_folder(folder: Path) -> Lock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        return Lock(folder / spec.LOCK_FILE)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write in {folder}: {error}; choose another place") from error


def _set_aside(folder: Path, lock: Lock) -> tuple[Lock, Path]:
    """Rename the parts of an unfinished run, so that nothing is lost until the new run is closed."""
    name = folder.name.removesuffix(spec.PARTS_SUFFIX)
    aside = folder.with_name(f"{name}{_REPLACED}{uuid.uuid4().hex[:8]}{spec.PARTS_SUFFIX}")
    folder.rename(aside)
    lock.release()
    return _locked_folder(folder), aside


def _set_aside_folders(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}{_REPLACED}*{spec.PARTS_SUFFIX}"))


def _leave(folder: Path, lock: Lock) -> None:
    """Unlock a folder, and remove it if it holds no parts."""
    if not any(folder.glob(f"*{spec.PART_FILE_SUFFIX}")):
        _remove([*folder.glob(f".*{spec.TEMPORARY_SUFFIX}"), folder / spec.LOCK_FILE])
        folder.rmdir()
    lock.release()


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def part_number(name: str) -> int:
    """Number of a part, from 1, by its file name."""
    return int(name.split("-")[0])
