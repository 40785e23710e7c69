"""Rules: how one use of a parameter turns cotangents into per-sample Jacobian factors.

A *use* is an autograd node that reads a parameter (or a tensor derived from parameters alone). The engine hands a
rule the node, the slot the parameter sits in, and the cotangents at the node's output, sorted by sample. The rule
answers with a *factor*: a compact form of the per-sample Jacobian rows of that slot.

    node, slot, cotangents [N, C, ...]  --rule-->  Outer(a, g) | Conv(x, g) | Lookup(tokens, g) | Dense(J)

To support a new kind of node, add one file here with a function under `@rule("NodeName")` and one row in
`twophase_fast._model_cases`. A node without a rule goes through `generic`, which is exact and slower.
`backward` is the other half: nodes that pull the cotangents of all outputs back in one call, by the ops, where torch's
engine would take them one at a time. A node it does not know goes through torch's engine. `samples` says where a node's
inputs keep the samples, given where its output does; where it does not know, the engine measures.

What never enters this folder: modules, tiles, kernels of whole models.
"""

from twophase_fast.rules import convolution, elementwise, embedding, linear, normalization, shape
from twophase_fast.rules._registry import RULES, Use, rule
from twophase_fast.rules.generic import generic
from twophase_fast.rules.layout import AnyLayout

__all__ = [
    "RULES",
    "AnyLayout",
    "Use",
    "convolution",
    "elementwise",
    "embedding",
    "generic",
    "linear",
    "normalization",
    "rule",
    "shape",
]
