"""The trace kernel by random combinations of the outputs.

For signs v in {-1, +1}^C, the same v for all samples, the scalar output v . f has the kernel

    K_v[n, m] = < J_n^T v , J_m^T v > = sum_cc' v_c v_c' K[n, m, c, c'],    E K_v = sum_c K[n, m, c, c],

since E v_c v_c' = delta_cc'. Each probe costs one pull-back and is exact in the parameters:

    Var K_v[n, m] = sum_{c != c'} K[n,m,c,c'] (K[n,m,c,c'] + K[n,m,c',c]).
"""

from __future__ import annotations

from twophase_fast.ntk.computation import Computation
from twophase_fast.ntk.forward import Function
from twophase_fast.ntk.inputs import Batch
from twophase_fast.ntk.signs import random_signs
from twophase_fast.ntk.uncertainty import WeightedMean

_SHARE = 8  # the probes' kernels held at once take at most this part of the budget


def probe_outputs(
    function: Function, left: Batch, right: Batch | None, *, probes: int, seed: int, budget: int, progress: bool
) -> WeightedMean:
    """Return the mean over `probes` kernels K_v, each [N, M].

    Args:
        function: Model, output function and selected parameters.
        left: The N samples.
        right: The M samples, or None for the symmetric kernel.
        probes: Number of probes.
        seed: Decides the signs.
        budget: Bytes that may be used.
        progress: Show progress bars.
    """
    output = function.graph(left.take(slice(0, 1))).output
    signs = random_signs((seed, "outputs"), probes, output.shape[1], like=output)
    kernel_bytes = left.size * (right or left).size * function.dtype.itemsize
    together = max(1, budget // (_SHARE * kernel_bytes))
    mean = WeightedMean()
    for chunk in signs.split(together):
        computation = Computation(
            function, left, right, "diagonal", None, budget, directions=chunk, reserved=4 * kernel_bytes
        )
        kernels = computation.kernels(progress=progress)[""]  # [N, M, probes of the chunk]
        for kernel in kernels.unbind(2):
            mean.add(kernel)
    return mean
