from __future__ import annotations

import pytest

from twophase_fast.report.numbers import ascii_number, between, count, factor, power_of_ten, pretty

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "page", "terminal"),
    [
        (0.0, "0", "0"),
        (NAN, "–", "-"),
        (0.03124, "0.0312", "0.0312"),
        (-0.5, "−0.500", "-0.500"),
        (1234.5, "1,234", "1234"),
        (12345.0, "1.23×10⁴", "1.23e+04"),
        (4.2e-7, "4.20×10⁻⁷", "4.20e-07"),
        (float("inf"), "∞", "inf"),
        (9.996, "10.00", "10.00"),
    ],
)
def test_numbers(value, page, terminal):
    assert pretty(value) == page
    assert ascii_number(value) == terminal


def test_only_zero_prints_as_zero():
    assert pretty(5e-324) != "0"
    assert ascii_number(5e-324) != "0"


def test_words():
    assert power_of_ten(-12) == "10⁻¹²"
    assert factor(12.4) == "12×"
    assert between(0.5, 0.5) == "0.500"
    assert between(0.1, 0.2) == "0.100 to 0.200"
    assert count(1, "seed") == "1 seed"
    assert count(3, "seed") == "3 seeds"
