from __future__ import annotations

import numpy as np

from twophase_fast.report.data import flatten, rows, setting, unique, where
from twophase_fast.report.spread import spreads

TABLE = {
    "seed": np.array([0, 1, 0, 1]),
    "step": np.array([10, 10, 20, 20]),
    "value": np.array([1.0, 3.0, np.nan, 5.0]),
}


def test_spread_is_mean_and_range_over_seeds():
    found = spreads(TABLE, ("step",), "value")
    assert found[(10,)].mean == 2.0
    assert (found[(10,)].low, found[(10,)].high) == (1.0, 3.0)
    assert found[(20,)].by_seed == {1: 5.0}  # nan is 'not evaluated', not a number


def test_spread_of_nothing_is_empty():
    assert spreads({}, ("step",), "value") == {}
    assert spreads(TABLE, ("step",), "other") == {}


def test_where_and_unique():
    assert rows(where(TABLE, step=10, seed=1)) == 1
    assert rows(where(TABLE, absent="anything")) == 4
    assert unique(TABLE, "step") == [10, 20]
    assert unique({}, "step") == []


def test_configuration_paths():
    config = {"a": {"b": 1}, "c": [{"d": 2}, {"d": 3}], "e": [4, 5]}
    assert flatten(config) == [("a.b", 1), ("c.1.d", 2), ("c.2.d", 3), ("e", [4, 5])]
    assert setting(config, "a.b") == 1
    assert setting(config, "a.b.c", "none") == "none"
