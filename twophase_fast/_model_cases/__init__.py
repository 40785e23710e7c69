"""Small models of every kind, each with an input: the rows that the exactness tests run on.

A row is a function that returns (model, inputs, keyword arguments of `entk`), in float64 and evaluation mode, with
seeded random parameters. To cover a new kind of parameter use, add one function under `@case` to the file of its kind.
"""

from twophase_fast._model_cases import calls, convolutions, linear, networks, sequences, tables_and_norms
from twophase_fast._model_cases._build import MODEL_CASES, Apply, Case, case

__all__ = [
    "MODEL_CASES",
    "Apply",
    "Case",
    "calls",
    "case",
    "convolutions",
    "linear",
    "networks",
    "sequences",
    "tables_and_norms",
]
