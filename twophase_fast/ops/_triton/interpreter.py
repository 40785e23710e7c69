"""Runs Triton functions on CPU tensors through Triton's own interpreter, in a process that can compile them too.

Triton's interpreter swaps the functions of `triton.language` while a kernel runs. Added here, and undone afterwards as
well:

* library functions written in Triton (`tl.sum`, `tl.zeros`, ...) are compiled objects unless `TRITON_INTERPRET=1` was
  set before Triton was imported; they are replaced by interpreted twins;
* `tl.dot` rounds its operands as tensor cores do (`_rounding`), so that errors are those of a GPU.

Limits: bfloat16 values may be loaded, stored, converted and multiplied by `tl.dot`; other arithmetic on them is not
defined (convert to float32 first, as one does on a GPU).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import triton.language as tl
from triton.runtime import interpreter as triton_interpreter
from triton.runtime.jit import JITFunction, mangle_type

from twophase_fast.ops._triton import _rounding

Function = Callable[..., Any]

_lock = threading.RLock()
_running = 0
_rewritten: dict[Function, Function] = {}
_twins: dict[Function, _Twin] = {}


class _Twin:
    """The interpreted form of a function of `triton.language`."""

    def __init__(self, function: Function) -> None:
        self.fn = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _restored(triton_interpreter._patch_lang(self.fn)):
            return rewritten(self.fn)(*args, **kwargs)


def active() -> bool:
    """Return whether a kernel is being interpreted."""
    return _running > 0


def rewritten(function: Function) -> Function:
    """Return `function` with every assignment made into a tensor, as the interpreter needs it."""
    if function not in _rewritten:
        _rewritten[function] = triton_interpreter.FunctionRewriter(function).rewrite_ast()
    return _rewritten[function]


def run(function: Function, names: Sequence[str], grid: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Interpret one launch, program after program.

    Args:
        function: The kernel as written.
        names: Its argument names.
        grid: Numbers of programs along up to three axes, or a function of the arguments that returns them.
        args: Positional arguments.
        kwargs: Named arguments; launch options are ignored.
    """
    global _running
    mangle_type(0)  # imports parts of Triton that must see the library as it was
    with _lock, _interpreted_library(), _rounding.as_on_tensor_cores():
        _running += 1
        try:
            triton_interpreter.GridExecutor(rewritten(function), list(names), grid)(*args, **kwargs)
        finally:
            _running -= 1


@contextlib.contextmanager
def _interpreted_library() -> Iterator[None]:
    """Replace the functions of `triton.language` that are written in Triton by their twins."""
    scope = triton_interpreter._LangPatchScope()
    scope.set_attr(triton_interpreter, "_patch_lang_tensor", _with_index(triton_interpreter._patch_lang_tensor))
    with _restored(scope):
        for module in (tl, tl.standard):
            for name, value in list(vars(module).items()):
                if isinstance(value, JITFunction):
                    scope.set_attr(module, name, _twins.setdefault(value.fn, _Twin(value.fn)))
        yield


def _with_index(patch: Function) -> Function:
    """Return `patch`, which also lets a scalar bound a loop: NumPy makes no int of an array of one element."""

    def patched(tensor: type, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    return patched


@contextlib.contextmanager
def _restored(scope: Any) -> Iterator[None]:
    try:
        yield
    finally:
        scope.restore()
