"""Kernels of whole models: capture by walking the autograd graph, Gram blocks through the ops.

    x --forward--> graph --probe--> uses, layouts --pull back--> cotangents --rules--> factors --ops--> K

| file | what it answers |
|---|---|
| `empirical` | the public calls `entk` and `plan` |
| `computation`, `block`, `shelf` | carries out a plan: blocks, groups of parameters, tiles; factors kept meanwhile |
| `stream` | kernels larger than memory, written tile by tile |
| `plan`, `planner`, `sizer`, `survey`, `cost`, `memory` | which method, tile and groups; bytes and FLOPs |
| `program` | what a forward pass keeps, and the cuts where a pull-back can stop and go on |
| `probe`, `labels`, `uses`, `graph` | which nodes use which parameter, and whose sample each entry is |
| `calibration`, `timing` | throughputs of this machine, cached; predicted seconds |
| `capture`, `accumulate` | one tile's factors; adding Gram blocks |
| `route`, `pullback` | which nodes go by rule, for all outputs in one call; cotangents on their way |
| `readout`, `biases` | wide readouts cut off exactly; biases carried by their layer's weight |
| `forward`, `inputs`, `parameters`, `guards` | the function, its inputs, what is refused and restored |
| `estimate`, `output_probes`, `sketch` | unbiased estimates with error bars |
| `projection`, `signs`, `uncertainty` | J R, random signs from a key, mean and standard error |
| `operator`, `directional`, `flat` | products with a kernel that is never formed |
| `verify` | random entries recomputed by an independent path |
| `reference` | the slow definition |

Training, storage and measures never enter this folder.
"""

from twophase_fast.ntk.calibration import calibrate
from twophase_fast.ntk.empirical import entk, plan
from twophase_fast.ntk.estimate import Estimate, entk_estimate
from twophase_fast.ntk.info import Info
from twophase_fast.ntk.operator import NTKOperator
from twophase_fast.ntk.plan import Plan
from twophase_fast.ntk.reference import naive_entk

__all__ = ["Estimate", "Info", "NTKOperator", "Plan", "calibrate", "entk", "entk_estimate", "naive_entk", "plan"]
