"""What the Triton kernels share.

A kernel file is `ops/<op>/triton_kernel.py`; its launch table is in the op's `config.py`.

```
op/__init__.py ── lazy, refuses ─► _triton/backend.py     no Triton needed; says why it cannot run
op/triton_kernel.py ── kernel ───► _triton/kernel.py      one object: compiled, interpreted, or ahead of time
                    ── dot ──────► _triton/dot.py         block products in every precision mode (names: modes.py)
op/config.py ───────── Launch ───► _triton/launch.py      launch configurations as data ─► autotune.py
op/triton_kernel.py ── aot_rows ─► _triton/aot.py         every configuration compiled for sm_80, sm_90, gfx942
```

Importing this package, or any op, does not import Triton.
"""
