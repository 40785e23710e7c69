"""`entk_estimate`: unbiased estimates of a kernel with a standard error for every entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn

from twophase_fast._types import InputError, Output, ParameterFilter, Precision
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.guards import check_model, preserved
from twophase_fast.ntk.inputs import check_targets, make_batch
from twophase_fast.ntk.memory import DEFAULT_SHARE, free_bytes, parse_bytes
from twophase_fast.ntk.output_probes import probe_outputs
from twophase_fast.ntk.parameters import select_parameters
from twophase_fast.ntk.sketch import SketchedKernel

_PROBES = 32


@dataclass(frozen=True)
class Estimate:
    """An unbiased estimate of a kernel.

    Attributes:
        kernel: The estimate, in the shape of the exact kernel.
        stderr: Standard error of every entry, in the same shape: the estimated standard deviation of `kernel` over
            seeds.
        probes: Number of independent estimates (output probes, or blocks of directions) that were averaged.
        exact: Parameters whose Gram blocks are exact and add nothing to `stderr` (empty for output probes).
    """

    kernel: torch.Tensor
    stderr: torch.Tensor
    probes: int
    exact: tuple[str, ...] = ()


def entk_estimate(
    model: nn.Module,
    x1: Any,
    x2: Any = None,
    *,
    output: Output = "trace",
    probes: int | None = None,
    sketch_dim: int | None = None,
    seed: int = 0,
    output_fn: Callable[..., torch.Tensor] | None = None,
    targets: Any = None,
    targets2: Any = None,
    params: ParameterFilter = None,
    precision: Precision = "highest",
    memory_budget: int | str | None = None,
    progress: bool = False,
) -> Estimate:
    """Return an unbiased estimate of the empirical Neural Tangent Kernel with error bars.

    Without `sketch_dim`, by Rademacher probes of the outputs (trace kernel only). For signs v in {-1, +1}^C, the same
    for all samples,

        kernel[n, m] = mean over probes of K_v[n, m],    K_v[n, m] = < J_n^T v , J_m^T v >,    E K_v = trace kernel.

    Each probe costs one pull-back and is exact over the parameters; with C <= probes outputs, `entk(output="trace")`
    is exact at no more cost.

    With `sketch_dim` = D, by random projections of the Jacobian (every output): R [P, D] holds independent signs,

        kernel = (J R)(J' R)^T / D,    E R R^T / D = 1.

    All C outputs are pulled back, but only J R [N, C, D] is kept in place of J [N, C, P]. Parameters whose exact factor
    is no larger than their part of the sketch (most layers with one position, biases, norms), and look-ups, enter
    exactly; `exact` lists them.

    The standard error comes from the `probes` independent estimates X_b (probes, or blocks of D_b directions with
    weights w_b = D_b; weights 1 for probes):

        stderr^2 = sum_b w_b (X_b - kernel)^2 / ((probes - 1) sum_b w_b).

    With blocks of equal size this is the delete-one-block jackknife. It is the error of the whole estimate over seeds,
    entry by entry; errors of different entries are correlated, since they share the random numbers.

    The result is a function of the arguments and `seed` alone (to rounding: also of the memory budget); the random
    generators of torch, NumPy and Python are neither read nor moved.

    Args:
        model: As in `entk`, like every argument that is not described here.
        x1: N samples.
        x2: M samples, or None for the symmetric kernel.
        output: `trace` for output probes; `full`, `trace`, `diagonal` or `sum` with `sketch_dim`.
        probes: Number of output probes, or of blocks of directions; at least 2. Default: 32 (`sketch_dim` if smaller).
        sketch_dim: Number D of random directions in parameter space, or None for output probes.
        seed: Decides all random numbers.
        output_fn: Reads [N, C] off the model's output.
        targets: Passed to `output_fn` for x1.
        targets2: The same for x2.
        params: Parameters to differentiate.
        precision: As in `entk`.
        memory_budget: Bytes the computation may take over model and inputs.
        progress: Show progress bars on stderr.

    Returns:
        An `Estimate`; its Tensors have dtype and device of the exact kernel.

    Raises:
        InputError: Bad inputs or options, fewer than two probes or blocks (no error bar possible), or an output that
            output probes do not estimate.
        UnsupportedModelError: No exact per-sample kernel exists.

    Source:
        Hutchinson (1989), doi 10.1080/03610918908812806, for traces by random signs; Achlioptas (2003),
        doi 10.1016/S0022-0000(03)00025-4, for projections by random signs.
    """
    count = _check_options(output, probes, sketch_dim, seed, precision)
    check_targets(output_fn, targets, x2, targets2)
    budget = parse_bytes(memory_budget)
    check_model(model)
    function = Function(model, output_fn, select_parameters(model, params))
    left = make_batch(x1, targets, name="x1", device=function.device)
    right = None if x2 is None else make_batch(x2, targets2, name="x2", device=function.device)
    if budget is None:
        budget = int(free_bytes(function.device) * DEFAULT_SHARE)
    with preserved(model, function.device):
        if sketch_dim is None:
            mean = probe_outputs(function, left, right, probes=count, seed=seed, budget=budget, progress=progress)
            return Estimate(mean.mean, mean.stderr, count)
        kernel = SketchedKernel(function, left, right, output, directions=sketch_dim, seed=seed, budget=budget)
        mean = kernel.estimate(count, progress=progress)
        return Estimate(mean.mean, mean.stderr, count, kernel.exact)


def _check_options(output: str, probes: int | None, sketch_dim: int | None, seed: int, precision: str) -> int:
    """Check the options and return the number of probes or blocks.

    Raises:
        InputError: One of them has an impossible value.
    """
    if output not in get_args(Output):
        raise InputError(f"output={output!r} is not one of {', '.join(get_args(Output))}")
    if precision not in get_args(Precision):
        raise InputError(f"precision={precision!r} is not one of {', '.join(get_args(Precision))}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"seed={seed!r}; expected a whole number")
    if sketch_dim is None and output != "trace":
        exact = "; entk(output='sum') is exact with a single pull-back" if output == "sum" else ""
        raise InputError(
            f"output={output!r} needs sketch_dim (random projections): output probes estimate the trace kernel "
            f"only{exact}"
        )
    count = min(_PROBES, sketch_dim or _PROBES) if probes is None else probes
    _check_count("sketch_dim", sketch_dim, "random directions")
    _check_count("probes", count, "probes, or blocks of random directions")
    if sketch_dim is not None and count > sketch_dim:
        raise InputError(f"probes={count} blocks cannot be made of sketch_dim={sketch_dim} directions; ask for fewer")
    return count


def _check_count(name: str, value: int | None, what: str) -> None:
    """Refuse numbers that leave no error bar.

    Raises:
        InputError: Not a whole number of at least 2.
    """
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 2):
        raise InputError(f"{name}={value!r}; at least 2 {what} are needed, since one gives no error bar")
