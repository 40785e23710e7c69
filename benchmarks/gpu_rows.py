"""What `make gpu-check` times: an op at one size, beside what the same GPU does with plain torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from twophase_fast import ops
from twophase_fast._types import Backend
from twophase_fast.ops import _dispatch, _workloads

Run = Callable[[], Any]


@dataclass(frozen=True)
class GpuRow:
    """One measurement.

    Attributes:
        name: Op, sizes, dtype and precision in words.
        make: Makes the inputs on a device; returns the op's call, the peer's call and the call of the float64 truth.
        peer: What the peer is.
        flops: Useful operations of the op, a multiply and an add being two; None if bytes count.
        peer_flops: Operations of the peer.
        bytes: Bytes that must be read or written at least once.
        bound: Largest relative Frobenius error; None: twice the peer's, and 1e-7.
    """

    name: str
    make: Callable[[torch.device], tuple[Run, Run, Run]]
    peer: str
    flops: float | None = None
    peer_flops: float | None = None
    bytes: float = 0.0
    bound: float | None = None


def rows(small: bool = False) -> Iterator[GpuRow]:
    """Yield the rows; `small` ones run in seconds under the interpreter."""
    for n, p in [(20, 40)] if small else [(8192, 8192), (1024, 65536)]:
        for precision, bound in (("medium", 2e-3), ("high", 1e-5), ("highest", None)):
            yield _gram(n, p, torch.float32, precision, bound)
        yield _gram(n, p, torch.bfloat16, "highest", 1e-5)
    yield _moments(100 if small else 128_000_000)
    yield _grouped(8 if small else 512, [40, 0, 7] if small else [65536] * 4 + [4096] * 16 + [64] * 40)
    for work in _workloads.of_suite("smoke" if small else "default"):
        if work.op not in ("gram", "gram_", "pair_moments") and "triton" in _dispatch.backends(work.op):
            yield against_reference(work)


def let_tf32(on: bool) -> None:
    """Let the GPU's library take TF32 for float32 products and convolutions, in this process, from now on."""
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.conv.fp32_precision = "tf32" if on else "ieee"


def _gram(n: int, p: int, dtype: torch.dtype, precision: str, bound: float | None) -> GpuRow:
    """The symmetric product against the GPU library's full product in the same precision class.

    The library has no split-precision product of float32: "high" stands beside its IEEE product.
    """

    def make(device: torch.device) -> tuple[Run, Run, Run]:
        """Return the op's call, the peer's and the truth's on inputs made there."""
        x = torch.randn(n, p, device=device, generator=torch.Generator(device).manual_seed(0)).to(dtype)

        def peer() -> torch.Tensor:
            return x @ x.mT

        let_tf32(precision == "medium")
        return lambda: ops.gram(x, precision=precision, backend="triton"), peer, lambda: x.double() @ x.double().mT

    name = f"gram n={n} p={p} {str(dtype).removeprefix('torch.')} {precision}"
    return GpuRow(name, make, "full product by the GPU library", float(n * (n + 1) * p), 2.0 * n * n * p, 0.0, bound)


def _moments(p: int) -> GpuRow:
    """Pair moments of two vectors against a device copy of as many bytes, half read and half written."""

    def make(device: torch.device) -> tuple[Run, Run, Run]:
        """Return the op's call, the peer's and the truth's on inputs made there."""
        x = torch.randn(p, device=device, generator=torch.Generator(device).manual_seed(0))
        y, target = x + 0.1, torch.empty_like(x)

        def moments(backend: str) -> list[torch.Tensor]:
            found = ops.pair_moments(x, y, backend=backend)
            return [found.xy, found.xx, found.yy, found.dd, found.max_abs_d, found.changed]

        return lambda: moments("triton"), lambda: target.copy_(x), lambda: moments("reference")

    return GpuRow(f"pair_moments p={p} float32", make, "device copy", bytes=8.0 * p, bound=1e-9)


def _grouped(n: int, lengths: Sequence[int]) -> GpuRow:
    """The Gram blocks of many parameter segments in one launch against one product of the GPU library for each."""

    def make(device: torch.device) -> tuple[Run, Run, Run]:
        """Return the op's call, the peer's and the truth's on inputs made there."""
        generator = torch.Generator(device).manual_seed(0)
        xs = [torch.randn(n, length, device=device, generator=generator) for length in lengths]
        ours, theirs = torch.zeros(n, n, device=device), torch.zeros(n, n, device=device)

        def run() -> torch.Tensor:
            ops.grouped_gram_(ours.zero_(), xs, precision="high", backend="triton")
            return ops.symmetrize_(ours, backend="triton")

        def peer() -> torch.Tensor:
            theirs.zero_()
            for x in xs:
                theirs.addmm_(x, x.mT)
            return theirs

        let_tf32(False)
        return run, peer, lambda: sum(x.double() @ x.double().mT for x in xs)

    work = float(sum(lengths)) * n
    name = f"grouped_gram_ n={n}, {len(lengths)} segments, {sum(lengths)} terms, float32 high"
    return GpuRow(name, make, "one full product each by the GPU library", work * (n + 1), 2 * work * n, bound=1e-5)


def against_reference(work: _workloads.OpWorkload, backend: Backend = "triton") -> GpuRow:
    """An op at the sizes of real layers against its definition in plain torch."""

    def make(device: torch.device) -> tuple[Run, Run, Run]:
        """Return the op's call, the peer's and the truth's on inputs made there."""
        inputs = pytree.tree_map_only(
            torch.Tensor, lambda t: t.nan_to_num().to(device), work.case.inputs(work.sizes, torch.float32)
        )
        theirs = pytree.tree_map_only(torch.Tensor, torch.clone, inputs)  # ops that accumulate have changed ours
        wide = pytree.tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)

        def call(given: dict[str, Any], backend: str) -> Any:
            return work.case.values(work.case.call(**given, backend=backend))

        return lambda: call(inputs, backend), lambda: call(theirs, "reference"), lambda: call(wide, "reference")

    flops = None if work.flops is None else work.flops(work.sizes)
    return GpuRow(str(work), make, "plain torch", flops, None, work.bytes(work.sizes), None)
