"""Ahead-of-time compilation, no GPU needed: every kernel, every launch configuration, every target.

Each `ops/<op>/triton_kernel.py` has a function `aot_rows()`; `rows()` finds them all. `inspect` compiles a row and says
what it needs on its target.
"""

from __future__ import annotations

import contextlib
import io
import pkgutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from twophase_fast.ops._triton import assembly
from twophase_fast.ops._triton.kernel import Kernel
from twophase_fast.ops._triton.launch import Launch

_OPS = __name__.rpartition("._triton")[0]


@dataclass(frozen=True)
class Target:
    """A GPU to compile for.

    Attributes:
        gpu: Triton's description.
        shared_limit: Bytes of shared memory one program may use.
        platform: Name in `modes.FLOAT32_MODES`.
    """

    gpu: GPUTarget
    shared_limit: int
    platform: str


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 166912, "cuda"),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 232448, "cuda"),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 65536, "gfx942"),
}
"""The targets of the report."""


@dataclass(frozen=True, eq=False)
class AotRow:
    """One kernel in one launch configuration.

    Attributes:
        op: Name of the op.
        label: What distinguishes the row among the op's: mode, dtype, shape class, ...
        kernel: The kernel.
        launch: Its launch configuration; its constants are arguments of the kernel.
        arguments: The kernel's other arguments by name. A string is the type of a run-time argument, such as "*fp32"
            or "i64", with ":16" behind it where the launcher's values are multiples of 16; anything else is the value
            of a compile-time constant (also of a stride that is always 1).
        targets: Names of the targets to compile for.
        wgmma: Whether on sm_90 a loop must multiply with `wgmma`.
    """

    op: str
    label: str
    kernel: Kernel
    launch: Launch
    arguments: Mapping[str, Any]
    targets: tuple[str, ...] = tuple(TARGETS)
    wgmma: bool = False

    def __str__(self) -> str:
        return f"{self.op} {self.kernel.__name__} {self.label} {self.launch} for {' '.join(self.targets)}"


@dataclass(frozen=True)
class AotResult:
    """What a compiled row needs.

    Attributes:
        op: Name of the op.
        kernel: Name of the kernel.
        label: The row's label.
        launch: The launch configuration, in words.
        target: Name of the target.
        registers: Registers per thread (AMD: VGPRs and AGPRs).
        spills: Bytes (AMD: registers) spilled per thread.
        shared: Bytes of shared memory per program.
        loop_wgmma: Whether a loop contains `wgmma.mma_async`.
        loop_tensor_core: Whether a loop contains any matrix instruction.
        loop_async_copy: Whether a loop contains an asynchronous copy to shared memory.
    """

    op: str
    kernel: str
    label: str
    launch: str
    target: str
    registers: int
    spills: int
    shared: int
    loop_wgmma: bool
    loop_tensor_core: bool
    loop_async_copy: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def rows() -> list[AotRow]:
    """Return the rows of all ops."""
    return [row for module in kernel_modules() for row in module.aot_rows()]


def kernel_modules() -> list[ModuleType]:
    """Return every `ops/<op>/triton_kernel.py`."""
    package = import_module(_OPS)
    folders = [info.name for info in pkgutil.iter_modules(package.__path__) if info.ispkg and info.name[0] != "_"]
    names = [f"{_OPS}.{folder}.triton_kernel" for folder in folders]
    return [import_module(name) for name in names if find_spec(name) is not None]


def inspect(row: AotRow, target: str) -> AotResult:
    """Compile a row for a target and return what it needs."""
    code, metadata, log = compile_row(row, target)
    found = assembly.nvidia(code, log) if "ptx" in code else assembly.amd(code)
    return AotResult(
        row.op, row.kernel.__name__, row.label, str(row.launch), target, shared=metadata.shared, **asdict(found)
    )


def compile_row(row: AotRow, target: str) -> tuple[Mapping[str, Any], Any, str]:
    """Return the generated code by stage, the compiler's metadata, and what the assembler printed."""
    types, constants, hints = _split({**row.arguments, **dict(row.launch.constants)}, row.kernel)
    source = ASTSource(row.kernel, types, constants, hints)
    options = {"num_warps": row.launch.num_warps, "num_stages": row.launch.num_stages}
    printed = io.StringIO()
    with _fresh_compiler(), contextlib.redirect_stdout(printed):
        compiled = triton.compile(source, target=TARGETS[target].gpu, options=options)
        return dict(compiled.asm), compiled.metadata, printed.getvalue()


def _split(arguments: Mapping[str, Any], kernel: Kernel) -> tuple[dict[str, str], dict[str, Any], dict[Any, Any]]:
    """Return the types of all arguments, the values of constants, and which run-time values are multiples of 16."""
    types: dict[str, str] = {}
    constants: dict[str, Any] = {}
    hints: dict[Any, Any] = {}
    for index, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if isinstance(value, str) and not parameter.is_constexpr:
            types[parameter.name], _, multiple = value.partition(":")
            if multiple:
                hints[(index,)] = [["tt.divisibility", int(multiple)]]
        else:
            types[parameter.name] = "constexpr"
            constants[parameter.name] = value
    return types, constants, hints


@contextlib.contextmanager
def _fresh_compiler() -> Iterator[None]:
    """Let Triton compile anew, away from the user's cache, and print what the assembler says."""
    knobs = triton.knobs
    with tempfile.TemporaryDirectory() as folder, knobs.cache.scope(), knobs.nvidia.scope():
        knobs.cache.dir = folder
        knobs.nvidia.dump_ptxas_log = True
        yield
