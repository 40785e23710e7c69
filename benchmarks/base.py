"""Another revision of this repository, checked out and built, to be timed beside this one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.child import ROOT, Child

LEAST_ROUNDS, MOST_ROUNDS = 3, 30


class BaseError(RuntimeError):
    """The other revision cannot be had."""


@contextmanager
def checkout(revision: str, repository: Path = ROOT) -> Iterator[Path]:
    """Check out and build a revision in a temporary folder, which is gone after the block.

    Raises:
        BaseError: There is no such revision, or its C++ extension was not built.
    """
    with tempfile.TemporaryDirectory(prefix="twophase-base-") as folder:
        root = Path(folder, "checkout")
        _git(repository, "worktree", "add", "--detach", "--quiet", str(root), full_name(revision, repository))
        try:
            _build(root)
            yield root
        finally:
            _git(repository, "worktree", "remove", "--force", str(root))


def full_name(revision: str, repository: Path = ROOT) -> str:
    """Return the full name of a commit.

    Raises:
        BaseError: There is none of that name.
    """
    return _git(repository, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", name=revision)


def _git(repository: Path, *arguments: str, name: str = "") -> str:
    answer = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True)
    if answer.returncode != 0:
        reason = answer.stderr.strip() or f"there is no revision {name!r} in this repository"
        raise BaseError(f"git {arguments[0]} failed: {reason}")
    return answer.stdout.strip()


def _build(root: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if not list(root.glob("twophase_fast/_C*")):  # the extension is optional, so a failed build is no failure
        raise BaseError(f"the C++ extension of the base was not built: {answer.stderr.strip()[-500:]}")


def side(root: Path, threads: int, cache: Path | None = None) -> Child:
    """Start a child that computes with the package in `root`, for `side.py`'s requests."""
    environment = {} if cache is None else {"TWOPHASE_CACHE_DIR": str(cache)}
    program = str(Path(__file__).parent / "side.py")
    return Child([sys.executable, "-P", program, str(root), str(threads)], environment)


def alternate(ours: Child, base: Child, seconds: float) -> dict[str, Any]:
    """Time both sides by turns, the first one changing every round.

    Returns:
        `seconds` and `base_seconds` (medians), `ratio` (base ÷ ours), `rounds`.
    """
    times: dict[Child, list[float]] = {ours: [], base: []}
    while len(times[ours]) < LEAST_ROUNDS or (
        sum(map(sum, times.values())) < seconds and len(times[ours]) < MOST_ROUNDS
    ):
        order = (ours, base) if len(times[ours]) % 2 == 0 else (base, ours)
        for one in order:
            times[one].append(one.ask(do="run")["seconds"])
    mine, theirs = median(times[ours]), median(times[base])
    return {"seconds": mine, "base_seconds": theirs, "ratio": theirs / mine, "rounds": len(times[ours])}
