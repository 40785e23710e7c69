"""How numbers are printed: three significant digits, powers of ten as a reader writes them."""

from __future__ import annotations

import math

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PLAIN_FROM = 1e-3
_PLAIN_TO = 1e4


def power_of_ten(exponent: int) -> str:
    """Return "10⁻³" for -3."""
    return "10" + str(exponent).translate(_SUPERSCRIPT)


def pretty(value: float, digits: int = 3) -> str:
    """Return a number for the page: "0.0312", "1,234", "4.2×10⁻⁷"; "0" only for exactly 0, "–" for nan."""
    value = float(value)
    if math.isnan(value):
        return "–"
    if value == 0 or math.isinf(value):
        return "0" if value == 0 else ("∞" if value > 0 else "−∞")
    if _PLAIN_FROM <= abs(value) < _PLAIN_TO:
        return _minus(_plain_digits(value, digits))
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{_minus(mantissa)}×{power_of_ten(int(exponent))}"


def ascii_number(value: float, digits: int = 3) -> str:
    """Return a number for the terminal: "0.0312", "4.20e-07"; "0" only for exactly 0, "-" for nan."""
    value = float(value)
    if math.isnan(value):
        return "-"
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    if _PLAIN_FROM <= abs(value) < _PLAIN_TO:
        return _plain_digits(value, digits).replace(",", "")
    return f"{value:.{digits - 1}e}"


def _plain_digits(value: float, digits: int) -> str:
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def factor(value: float) -> str:
    """Return a ratio for a sentence: "12×", "0.7×", "0.005×"."""
    return f"{pretty(value, 2)}×"


def between(low: float, high: float, show=pretty) -> str:
    """Return "a to b", or one number where both print alike."""
    first, last = show(low), show(high)
    return first if first == last else f"{first} to {last}"


def count(number: int, noun: str) -> str:
    """Return "1 seed", "3 seeds"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
