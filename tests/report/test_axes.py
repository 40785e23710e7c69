from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from twophase_fast.report.figures.axes import (
    log_label,
    signed_root,
    signed_square,
    spans_decades,
    step_axis,
    value_axis,
)
from twophase_fast.report.figures.matrix import color_scale
from twophase_fast.report.style import RC, css_variable, panel, ramp, to_svg


def axes():
    return Figure(layout="constrained").subplots()


def test_root_scale_is_inverted_exactly_enough():
    x = np.array([-4.0, 0.0, 1.0, 600.0, 80000.0])
    np.testing.assert_allclose(signed_square(signed_root(x)), x, rtol=1e-15)


@pytest.mark.parametrize(
    "steps", [[0], [0, 10, 25, 50, 100, 200, 300, 400], list(range(0, 601, 10)), [0, 500, 1000, 2500, 20000, 80000]]
)
def test_step_labels_keep_first_and_last_and_do_not_collide(steps):
    ax = axes()
    step_axis(ax, steps, "step")
    format_label = ax.xaxis.get_major_formatter()
    labelled = [step for step in steps if format_label(step, None)]
    assert labelled[0] == steps[0]
    assert labelled[-1] == steps[-1]
    places = signed_root(np.array(labelled, dtype=float)) / max(1.0, signed_root(np.array(float(steps[-1]))))
    assert np.all(np.diff(places) > 0.05)


@pytest.mark.parametrize(
    ("values", "linear", "scale"),
    [([0.01, 1.0], False, "log"), ([0.01, 1.0], True, "linear"), ([0.5, 1.0], False, "linear"), ([], False, "linear")],
)
def test_log_axis_only_where_values_span_decades(values, linear, scale):
    ax = axes()
    value_axis(ax, values, "value", linear=linear)
    assert ax.get_yscale() == scale


def test_value_axis_holds_every_value():
    ax = axes()
    value_axis(ax, [1e-5, 3.0, 0.0, float("nan")], "value")
    low, high = ax.get_ylim()
    assert low < 1e-5
    assert high > 3.0


@pytest.mark.parametrize(
    ("value", "label"), [(0.01, "0.01"), (1000.0, "1000"), (1e-4, "10⁻⁴"), (2e-5, "2×10⁻⁵"), (1e6, "10⁶"), (0.0, "")]
)
def test_log_labels(value, label):
    assert log_label(value) == label


def test_color_scale_starts_at_zero_and_is_shared():
    near, far = np.array([[0, 0.5], [0.5, 0]]), np.array([[0, 0.01], [0.01, 0]])
    assert (color_scale([far, near]).vmin, color_scale([far, near]).vmax) == (0.0, 0.5)
    assert color_scale([far]).vmax == 0.01
    assert spans_decades([0.0, 0.3]) is False


def test_svg_is_inline_and_themed():
    with mpl.rc_context(RC):
        figure = panel()
        figure.subplots().plot([0, 1], color=ramp(3)[1])
        svg, again = to_svg(figure, "one"), to_svg(figure, "two")
    assert svg.startswith("<svg aria-hidden")
    assert "http" not in svg
    assert css_variable(ramp(3)[1]) in svg
    assert 'width="' not in svg[: svg.index(">")]
    assert again == svg.replace("one-", "two-")
