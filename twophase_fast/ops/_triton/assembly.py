"""What generated assembly says about a kernel: registers, spills, and the instructions of its loops."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_NVIDIA_MATRIX = re.compile(r"\b(wgmma\.mma_async|mma\.sync)")
_NVIDIA_COPY = re.compile(r"\bcp\.async\.(?!wait|commit)")
_AMD_MATRIX = re.compile(r"\bv_mfma")
_AMD_COPY = re.compile(r"\bbuffer_load.*\blds\b|\bglobal_load_lds")


@dataclass(frozen=True)
class Findings:
    """Fields of `aot.AotResult` that come from the assembly."""

    registers: int
    spills: int
    loop_wgmma: bool
    loop_tensor_core: bool
    loop_async_copy: bool


def nvidia(code: Mapping[str, str], log: str) -> Findings:
    """Return what PTX and the output of `ptxas -v` say.

    Raises:
        ValueError: The log has no register count.
    """
    used = re.search(r"Used (\d+) registers", log)
    if used is None:
        raise ValueError(f"ptxas printed no register count; its output was {log!r}")
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", log))
    text = "\n".join(loops(code["ptx"], r"^\s*(\$\w+):", r"\bbra(?:\.uni)?\s+(\$\w+)"))
    return Findings(
        registers=int(used[1]),
        spills=spills,
        loop_wgmma="wgmma.mma_async" in text,
        loop_tensor_core=bool(_NVIDIA_MATRIX.search(text)),
        loop_async_copy=bool(_NVIDIA_COPY.search(text)),
    )


def amd(code: Mapping[str, str]) -> Findings:
    """Return what AMD assembly and the metadata behind it say."""
    listing = code["amdgcn"]
    text = "\n".join(loops(listing, r"^(\.L\w+):", r"\bs_c?branch\w*\s+(\.L\w+)"))
    return Findings(
        registers=_field(listing, "vgpr_count"),
        spills=_field(listing, "vgpr_spill_count") + _field(listing, "sgpr_spill_count"),
        loop_wgmma=False,
        loop_tensor_core=bool(_AMD_MATRIX.search(text)),
        loop_async_copy=bool(_AMD_COPY.search(text)),
    )


def loops(listing: str, label: str, branch: str) -> Iterator[str]:
    """Yield the instructions of every innermost loop: between a label and a branch back to it.

    Args:
        listing: Assembly, one instruction or label a line.
        label: Pattern of a line that defines a label; group 1 is its name.
        branch: Pattern of a branch; group 1 is the label it goes to.
    """
    lines = listing.splitlines()
    where = {match[1]: number for number, line in enumerate(lines) if (match := re.search(label, line))}
    jumps = [(number, where[match[1]]) for number, line in enumerate(lines) if (match := re.search(branch, line))
             and match[1] in where]  # fmt: skip
    spans = [(target, number) for number, target in jumps if target < number]
    for start, end in spans:
        if not any((start, end) != other and start <= other[0] and other[1] <= end for other in spans):
            yield "\n".join(lines[start : end + 1])


def _field(listing: str, name: str) -> int:
    match = re.search(rf"\.{name}:\s*(\d+)", listing)
    if match is None:
        raise ValueError(f"the assembly has no metadata field .{name}; this Triton writes another format")
    return int(match[1])
