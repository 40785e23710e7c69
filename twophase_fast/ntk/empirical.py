"""`entk`: the exact empirical Neural Tangent Kernel of any ordinary module."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from twophase_fast._types import InputError, Output, ParameterFilter, Precision, UnsupportedModelError
from twophase_fast.ntk.calibration import calibrate
from twophase_fast.ntk.computation import Computation
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.guards import check_model, preserved
from twophase_fast.ntk.inputs import Batch, check_targets, make_batch
from twophase_fast.ntk.memory import parse_bytes
from twophase_fast.ntk.parameters import select_parameters
from twophase_fast.ntk.plan import Plan
from twophase_fast.ntk.stream import fill
from twophase_fast.ntk.timing import device_named, predict
from twophase_fast.ntk.verify import verify_entries

_OUTPUTS = ("full", "trace", "diagonal", "sum")
_USABLE = 0.9  # of a device's memory
_PRECISIONS = ("highest", "high", "medium")


def entk(
    model: nn.Module,
    x1: Any,
    x2: Any = None,
    *,
    output: Output = "full",
    output_fn: Callable[..., torch.Tensor] | None = None,
    targets: Any = None,
    targets2: Any = None,
    params: ParameterFilter = None,
    per_parameter: bool = False,
    precision: Precision = "highest",
    memory_budget: int | str | None = None,
    tile: int | None = None,
    out: Any = None,
    verify: int = 0,
    return_info: bool = False,
    progress: bool = False,
) -> Any:
    """Return the empirical Neural Tangent Kernel, exactly.

        K[n, m, c, c'] = < df_c(x1_n) / dtheta , df_c'(x2_m) / dtheta >

    The model is used as it is: nothing is wrapped, hooked or changed, and flags, gradients, buffers and random
    generators are as before afterwards. Only cotangents at layer outputs are pulled back.

    Args:
        model: Any `nn.Module` that treats samples independently (BatchNorm and dropout in eval mode).
        x1: N samples: a Tensor, a tuple of Tensors (positional arguments) or a dict of Tensors (keyword arguments),
            each with the samples on its first axis.
        x2: M samples in the same form, or None for the symmetric kernel of x1.
        output: `full` [N, M, C, C]; `trace` [N, M], the sum over c of K[n,m,c,c] (a sum, not a mean); `diagonal`
            [N, M, C]; `sum` [N, M], the kernel of sum_c f_c / sqrt(C) (pseudo-NTK).
        output_fn: `output_fn(model_output[, targets])` -> [N, C] or [N] (which counts as C = 1: a full kernel is then
            [N, M, 1, 1]); default: the output itself, or its `.logits`.
        targets: Passed to `output_fn` for x1: a pytree of Tensors with the samples on their first axis.
        targets2: The same for x2, given if and only if `targets` is.
        params: Parameters to differentiate: None (all that require grad), globs, each of which must match a name, or a
            predicate on the name.
        per_parameter: Return a dict name -> kernel instead; the values sum to K. A tied weight has one entry, under
            its first name.
        precision: `highest` is IEEE float32 (float64 for float64 models). For Jacobians and Gram blocks `high`
            (relative error of K at most 1e-5) and `medium` (2e-3) run on a GPU's matrix units, for Gram blocks `high`
            also on a CPU's (AMX), and where there are none the next better one runs; on a CPU `high` also takes larger
            tiles of Winograd's algorithm for Jacobians of convolutions and the pull-back through them. On a GPU
            pull-backs are IEEE float32 in every precision.
        memory_budget: Bytes the computation may take over model and inputs, the kernel included: a number, or text such
            as "250 MB" or "4 GiB". Default: half of the memory that is free; up to 512 MiB of pages then stay for the
            next call on a CPU, which the system may take meanwhile. A program that depends on the data cannot be
            planned: a warning then says that the budget was not followed.
        tile: Samples per forward pass; default: chosen by the planner.
        out: Anything floating point with the kernel's shape and slice assignment (Tensor, NumPy memmap, HDF5 data set):
            filled tile by tile and returned. In a file, finished tiles are logged and a second call computes only what
            is missing.
        verify: Recompute this many random entries by an independent path (one `torch.autograd.grad` per sample and
            output) and raise on disagreement.
        return_info: Also return an `Info`.
        progress: Show a progress bar with the time left on stderr.

    Returns:
        A detached Tensor on the model's device, float64 if a parameter is float64, else float32. With
        `per_parameter`, a dict of such Tensors; with `return_info`, a pair of the result and an `Info`.

    Raises:
        InputError: Bad inputs: not finite, wrong shapes, devices, dtypes or options, or a budget that is too small.
        UnsupportedModelError: No exact per-sample kernel exists (samples coupled, randomness, no parameters).
        VerificationError: A recomputed entry disagrees.

    What the model or `output_fn` raises itself comes through, with a note of the samples it was called on.

    Source:
        Jacot, Gabriel and Hongler (2018), arXiv 1806.07572; the sum over parameter uses follows Novak, Sohl-Dickstein
        and Schoenholz (2022), arXiv 2206.08720.
    """
    budget = _check_options(output, precision, tile, memory_budget, verify)
    check_targets(output_fn, targets, x2, targets2)
    check_model(model)
    function = Function(model, output_fn, select_parameters(model, params))
    left = make_batch(x1, targets, name="x1", device=function.device)
    right = None if x2 is None else make_batch(x2, targets2, name="x2", device=function.device)
    if out is not None and per_parameter:
        raise InputError("out= holds one kernel; call without per_parameter, or once per parameter with params=")
    with preserved(model, function.device):
        if out is not None:
            info = fill(out, function, left, right, output, tile, budget, precision=precision, progress=progress)
            kernels = {"": out}
        else:
            computation = Computation(
                function, left, right, output, tile, budget, per_parameter=per_parameter, precision=precision
            )
            kernels, info = computation.kernels(progress=progress), computation.info
        if budget is not None and info.plan is not None and not info.plan.rows:
            warnings.warn(
                "memory_budget was not followed: the model's program depends on the data, so its memory cannot be "
                "planned; bound it with tile= instead",
                stacklevel=2,
            )
        if verify:
            _verify(function, left, right, kernels, output, verify, info.precision)
    result = kernels if per_parameter else kernels[""]
    return (result, info) if return_info else result


def _verify(
    function: Function,
    left: Batch,
    right: Batch | None,
    kernels: dict[str, Any],
    output: str,
    count: int,
    precision: Precision,
) -> None:
    """Recompute random entries of every kernel; one parameter's kernel is checked against that parameter alone."""
    for name, kernel in kernels.items():
        own = function if not name else replace(function, parameters={name: function.parameters[name]})
        verify_entries(own, left, right, kernel, output, count, precision=precision)


def plan(
    model: nn.Module,
    x1: Any,
    x2: Any = None,
    *,
    output: Output = "full",
    output_fn: Callable[..., torch.Tensor] | None = None,
    targets: Any = None,
    targets2: Any = None,
    params: ParameterFilter = None,
    per_parameter: bool = False,
    memory_budget: int | str | None = None,
    tile: int | None = None,
    world_size: int = 1,
    profile: str | None = None,
) -> Plan:
    """Return how `entk` would compute the kernel, what it takes and how long; `print` it.

    After tiny forward passes and one timed pass of one tile; the first call on a machine measures the ops' throughputs
    (about three seconds, cached: `tp.calibrate(refresh=True)` measures again).

    Args:
        model: As in `entk`, like every argument below.
        x1: N samples.
        x2: M samples, or None.
        output: Form of the kernel.
        output_fn: Reads [N, C] off the model's output.
        targets: Passed to `output_fn` for x1.
        targets2: The same for x2.
        params: Parameters to differentiate.
        per_parameter: Plan one kernel per parameter.
        memory_budget: Bytes the computation may take.
        tile: Samples per forward pass.
        world_size: Devices that share the work: each runs the passes of its part of the samples, all exchange their
            factors, and each adds and holds an equal part of the kernel.
        profile: Predict for a device that is not at hand (`a100-40gb`, `a100-80gb`, `h100-80gb`, `h200-141gb`), from
            its data sheet and 60 % efficiency; its memory less the model's is then the default budget. None: this one.

    Returns:
        A `Plan`: tile, groups, and per parameter its method, FLOPs, bytes and seconds; `total_flops`, `peak_bytes` (of
        each device), `seconds`.

    Raises:
        InputError: Bad inputs or options, or a budget too small for one sample of one parameter.
        UnsupportedModelError: No exact per-sample kernel exists, or the program depends on the data.
    """
    budget = _check_options(output, "highest", tile, memory_budget)
    check_targets(output_fn, targets, x2, targets2)
    check_model(model)
    function = Function(model, output_fn, select_parameters(model, params))
    left = make_batch(x1, targets, name="x1", device=function.device)
    right = None if x2 is None else make_batch(x2, targets2, name="x2", device=function.device)
    if not isinstance(world_size, int) or world_size < 1:
        raise InputError(f"world_size={world_size!r}; expected a number of devices, 1 or more")
    if profile is None:
        calibrate(function.device)
    elif budget is None:
        budget = _memory_left(profile, model)
    with preserved(model, function.device):
        computation = Computation(
            function, left, right, output, tile, budget, per_parameter=per_parameter, shares=world_size
        )
        made = computation.prepare(partial(predict, profile=profile))
    if not made.rows:
        raise UnsupportedModelError("the model's program depends on the data, so nothing can be planned beforehand")
    return made


def _memory_left(profile: str, model: nn.Module) -> int:
    """Return the bytes of a named device that a model leaves free.

    Raises:
        InputError: None.
    """
    tensors = [*model.parameters(), *model.buffers()]
    left = int(_USABLE * device_named(profile).memory) - sum(t.numel() * t.element_size() for t in tensors)
    if left <= 0:
        raise InputError(f"the model alone does not fit a {profile}; shard it over more devices first")
    return left


def _check_options(
    output: str,
    precision: str,
    tile: int | None,
    memory_budget: int | str | None,
    verify: int = 0,
) -> int | None:
    """Check the options and return the budget in bytes.

    Raises:
        InputError: One of them has an impossible value.
    """
    if output not in _OUTPUTS:
        raise InputError(f"output={output!r} is not one of {', '.join(_OUTPUTS)}")
    if precision not in _PRECISIONS:
        raise InputError(f"precision={precision!r} is not one of {', '.join(_PRECISIONS)}")
    if tile is not None and (not isinstance(tile, int) or tile < 1):
        raise InputError(f"tile={tile!r}; expected a positive number of samples")
    if not isinstance(verify, int) or isinstance(verify, bool) or verify < 0:
        raise InputError(f"verify={verify!r}; expected a number of entries to recompute, such as 10, or 0 for none")
    return parse_bytes(memory_budget)
