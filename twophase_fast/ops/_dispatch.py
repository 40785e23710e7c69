"""Which backend runs an op: one table, the first row that fits, and the reasons when none does.

`backend=None` tries `triton` (CUDA tensors only), `cpu` (CPU tensors only), `library`, then `reference`;
`TWOPHASE_BACKEND` names one for all ops that were not told otherwise. A named backend runs or fails: there is no silent
way around it.

`library` is torch's cuBLAS and cuDNN, for products and convolutions that are theirs to compute: what such an op, which
has no Triton version, runs on a GPU. Its row says so, and there `TWOPHASE_BACKEND=triton`, which asks for the GPU's way
through all ops, means `library`; `backend="triton"`, which asks for a kernel, still fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twophase_fast import settings
from twophase_fast._types import BackendError, InputError

BACKENDS = ("triton", "cpu", "library", "reference")
"""Backend names in the order in which they are tried."""

Refusal = Callable[..., Sequence[str]]


@dataclass(frozen=True)
class Implementation:
    """One backend of one op.

    Attributes:
        run: Computes the op; takes the op's arguments without `backend`.
        refuses: Takes the same arguments; returns every reason not to run, empty if it fits.
    """

    run: Callable[..., Any]
    refuses: Refusal


_table: dict[str, dict[str, Implementation]] = {}


def _refuses_nothing(*_: Any) -> Sequence[str]:
    return ()


def add(
    op: str,
    *,
    reference: Callable[..., Any],
    cpu: Callable[..., Any] | None = None,
    cpu_refuses: Refusal = _refuses_nothing,
    triton: Callable[..., Any] | None = None,
    triton_refuses: Refusal = _refuses_nothing,
    library: Callable[..., Any] | None = None,
) -> None:
    """Enter one op into the table.

    Args:
        op: Name of the op, as in its schema.
        reference: The definition in plain torch; takes every valid input.
        cpu: The compiled C++ version, if there is one.
        cpu_refuses: Reasons why `cpu` does not take these arguments.
        triton: The Triton version, if there is one.
        triton_refuses: Reasons why `triton` does not take these arguments.
        library: The version of torch's libraries that serves GPUs, for an op that has no Triton version; takes every
            valid input.
    """
    row = {"reference": Implementation(reference, _refuses_nothing)}
    if cpu is not None:
        row["cpu"] = Implementation(cpu, cpu_refuses)
    if triton is not None:
        row["triton"] = Implementation(triton, triton_refuses)
    if library is not None:
        row["library"] = Implementation(library, _refuses_nothing)
    _table[op] = row


def ops() -> list[str]:
    """Return the names of all registered ops."""
    return sorted(_table)


def backends(op: str) -> list[str]:
    """Return the backends that `op` has, in the order in which they are tried."""
    return [name for name in BACKENDS if name in _table[op]]


def reasons(op: str, backend: str, *arguments: Any) -> list[str]:
    """Return every reason why `backend` does not run `op` on `arguments`; empty if it does."""
    implementation = _table[op].get(backend)
    if implementation is None:
        return [f"{op} has no {backend} implementation"]
    return list(implementation.refuses(*arguments))


def choose(op: str, backend: str | None, *arguments: Any) -> str:
    """Return the name of the backend that runs `op` on `arguments`.

    Args:
        op: Name of the op.
        backend: A backend's name, or None for `TWOPHASE_BACKEND` and then the first that fits.
        arguments: The op's arguments.

    Raises:
        BackendError: No backend fits, or the named one does not; the message lists every reason per backend.
        InputError: `backend` is no known name.
    """
    wanted = backend or _forced(op)
    if wanted is not None and wanted not in BACKENDS:
        raise InputError(f"backend={wanted!r} is unknown; use None or one of {', '.join(map(repr, BACKENDS))}")
    for name in [wanted] if wanted else BACKENDS:
        if not reasons(op, name, *arguments):
            return name
    raise BackendError(_explain(op, wanted, arguments))


def _forced(op: str) -> str | None:
    """Return the backend that the environment asks for: `library` for `triton` where that is how a GPU runs the op."""
    wanted = settings.backend()
    return "library" if wanted == "triton" and wanted not in _table[op] and "library" in _table[op] else wanted


def run(op: str, backend: str | None, *arguments: Any) -> Any:
    """Run `op` on the backend that `choose` picks."""
    return _table[op][choose(op, backend, *arguments)].run(*arguments)


def _explain(op: str, wanted: str | None, arguments: tuple[Any, ...]) -> str:
    lines = [f"{op}: backend {wanted!r} does not take these inputs" if wanted else f"{op}: no backend fits"]
    for name in (name for name in BACKENDS if name != "library" or name in (wanted, *_table[op])):
        why_not = reasons(op, name, *arguments)
        lines.append(f"  {name}: {'; '.join(why_not) if why_not else 'takes them'}")
    lines.append("pass backend=None to take the first that fits")
    return "\n".join(lines)
