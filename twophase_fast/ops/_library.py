"""The one `torch.library` namespace of this package, and how an op enters it.

Adding an op takes two calls in its `__init__.py`, one per table::

    _library.define("gram(Tensor x, Tensor? y, str precision, str backend) -> Tensor", fake=_fake_gram)
    _dispatch.add("gram", reference=reference.gram, cpu=cpu.gram, cpu_refuses=cpu.refuses)

Afterwards `torch.ops.twophase_fast.gram(x, y, "highest", "")` runs the first backend that fits the tensors.
Rules:

* the last argument is `str backend`, empty for automatic choice; backends are called without it;
* an op never returns one of its inputs; an op that writes declares it, `Tensor(a!) out`, and returns `()`;
* inputs carry no gradient: the public function detaches them (`plain` here).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.library import Library

from twophase_fast.ops import _dispatch

NAMESPACE = "twophase_fast"
_DEVICES = ("CPU", "CUDA")
_library = Library(NAMESPACE, "DEF")


def _writes(*_: Any) -> None:
    """Stand in for an op that returns nothing."""


def define(schema: str, *, fake: Callable[..., Any] = _writes) -> None:
    """Register an op whose implementation is the dispatch table's row of the same name.

    Args:
        schema: Torch schema without namespace, `name(arguments) -> result`; the last argument is `str
            backend`.
        fake: Same arguments; returns empty tensors of the results' shapes and dtypes. Left out for an op that writes.
    """
    name = schema.partition("(")[0]
    _library.define(schema)

    def implementation(*arguments: Any) -> Any:
        *inputs, backend = arguments
        return _dispatch.run(name, backend or None, *inputs)

    for device in _DEVICES:
        _library.impl(name, implementation, device)
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` without its gradient history; ops compute values, never derivatives."""
    return tensor.detach() if tensor.requires_grad else tensor


def all_plain(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return `plain` of every tensor."""
    return [plain(tensor) for tensor in tensors]
