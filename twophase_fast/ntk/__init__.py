"""Kernels of whole models: capture by walking the autograd graph, Gram blocks through the ops.

    x --forward--> graph --probe--> uses, layouts --pull back--> cotangents --rules--> factors --ops--> K

`empirical` is the public entry; `probe` finds the uses, `capture` makes one tile's factors, `accumulate` adds Gram
blocks, `reference` is the slow definition. Training, storage and measures never enter this folder.
"""

from twophase_fast.ntk.empirical import Info, entk
from twophase_fast.ntk.reference import naive_entk

__all__ = ["Info", "entk", "naive_entk"]
