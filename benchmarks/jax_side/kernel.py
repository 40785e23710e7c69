"""The kernel by neural-tangents, compiled before it is timed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

UNUSED = "neural_tangents.experimental"  # imports TensorFlow, which nothing here needs


def compiled(model: Path, output: str, implementation: int) -> Callable[[], np.ndarray]:
    """Compile the kernel of an exported model on its inputs.

    Args:
        model: The file that `benchmarks.jax_export` wrote.
        output: `full` or `trace`.
        implementation: Of `nt.empirical_ntk_fn`: 1 Jacobian contraction, 2 NTK-vector products, 3 structured
            derivatives.

    Returns:
        A function that computes the kernel, `[N, N, C, C]` or `[N, N]`, and waits for it.
    """
    import jax

    from benchmarks.jax_side import models

    with np.load(model) as file:
        arrays = {name: file[name] for name in file.files}
    apply = models.build(json.loads(str(arrays.pop("layers"))))
    x = jax.device_put(arrays.pop("inputs"))
    kinds = {kind: _of_kind(arrays, kind) for kind in ("parameter", "constant")}
    constants = kinds["constant"]
    kernel_fn = _neural_tangents().empirical_ntk_fn(
        lambda parameters, inputs: apply(parameters, constants, inputs),
        trace_axes=(-1,) if output == "trace" else (),
        vmap_axes=0,
        implementation=implementation,
    )
    parameters = jax.device_put(kinds["parameter"])
    run = jax.jit(lambda inputs, values: kernel_fn(inputs, None, values)).lower(x, parameters).compile()
    outputs = apply(parameters, constants, x[:1]).shape[1]
    scale = outputs if output == "trace" else 1  # neural-tangents divides a trace by C
    return lambda: scale * np.asarray(run(x, parameters))


def _of_kind(arrays: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    prefix = f"{kind}:"
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _neural_tangents() -> ModuleType:
    """Import neural-tangents 0.6.5 under JAX 0.4.38.

    Implementation 3 uses two names that JAX has since taken out of `jax.interpreters.ad`; they are put back.
    """
    sys.modules.setdefault(UNUSED, ModuleType(UNUSED))
    import jax
    import neural_tangents
    from jax._src import source_info_util
    from jax.interpreters import ad

    ad.source_info_util, ad.config = source_info_util, jax.config
    return neural_tangents
