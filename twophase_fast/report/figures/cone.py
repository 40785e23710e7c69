"""Cone figures: how the kernel moves through training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes

from twophase_fast.report import cone_series as cone
from twophase_fast.report.data import Run, unique, where
from twophase_fast.report.figures.axes import step_axis, value_axis
from twophase_fast.report.figures.block import Block, Panel, describe, draw_panel, legend_of
from twophase_fast.report.figures.lines import Series, all_values, draw, ordered
from twophase_fast.report.figures.matrix import matrix_block
from twophase_fast.report.spread import Spread, spreads
from twophase_fast.report.style import LIGHT, VARIANT_COLORS

STEP_LABEL = "step t (iterations, root scale)"


def cone_blocks(run: Run) -> list[Block]:
    """Return the figures of kernel motion whose data were stored."""
    blocks = (matrix_block(run), _drift(run), _references(run), _half_angles(run), _relative_motion(run))
    return [block for block in blocks if block is not None]


def _drift(run: Run) -> Block | None:
    output = cone.primary_output(run)
    groups = {
        variant: ordered({dt: cone.drift(run, variant, output, dt) for dt in cone.spacings(run)}, "dt = {}")
        for variant in run.variants
    }
    reading = (
        "How much the kernel turns within dt iterations starting at t. A fall by itself may be slower learning: "
        "compare the control, and see whether lines of different dt end at one floor (motion to and fro) or keep "
        "their order (steady motion)."
    )
    return _by_variant(run, "cone-drift", "Kernel drift S(t, t+dt)", "S(t, t+dt)", reading, groups)


def _references(run: Run) -> Block | None:
    output = cone.primary_output(run)
    groups = {
        variant: ordered({ref: cone.to_reference(run, variant, output, ref) for ref in cone.references(run)}, "τ = {}")
        for variant in run.variants
    }
    reading = (
        "Kernel distance to the kernel at a fixed reference step τ. Flat and low after a late τ: the kernel stays in a "
        "cone around it. Each line touches 0 at t = τ, which is left out."
    )
    title = "Kernel distance to reference steps"
    return _by_variant(run, "cone-references", title, "S(t, τ)", reading, groups)


def _by_variant(
    run: Run, anchor: str, title: str, axis: str, reading: str, groups: Mapping[str, list[Series]]
) -> Block | None:
    groups = {variant: series for variant, series in groups.items() if series}
    if not groups:
        return None
    values = all_values(groups.values())
    panels = [
        _panel(f"{anchor}-{variant}", run.label(variant), axis, series, values, STEP_LABEL)
        for variant, series in groups.items()
    ]
    return Block(anchor, title, reading, panels, legend_of(max(groups.values(), key=len)))


def _half_angles(run: Run) -> Block | None:
    window = cone.window(run)
    groups = {
        output: _one_per_variant(run, partial(cone.half_angles, run, output=output))
        for output in unique(run.table("cone"), "output")
    }
    groups = {output: series for output, series in groups.items() if series}
    if window is None or not groups:
        return None
    values = all_values(groups.values())
    panels = [
        _panel(f"cone-angle-{output}", f"{output} kernel", "half-angle (degrees)", series, values, _tau_label(window))
        for output, series in groups.items()
    ]
    reading = (
        f"The largest angle between the kernel at τ and any kernel stored in the fixed window τ ≤ t ≤ τ + {window:,}. "
        "A fall means a narrowing cone. Steps whose window would pass the end of training are left blank."
    )
    title = f"Half-angle of the cone over a fixed window of {window:,} iterations"
    return Block("cone-angle", title, reading, panels, legend_of(max(groups.values(), key=len)))


def _tau_label(window: int) -> str:
    return f"step τ (iterations, root scale), W = {window:,}"


def _relative_motion(run: Run) -> Block | None:
    spacing = cone.headline_spacing(run)
    if spacing is None:
        return None
    output = cone.primary_output(run)
    ratio = _one_per_variant(run, lambda variant: cone.per_distance(run, variant, output, spacing))
    speed = _one_per_variant(run, lambda variant: _velocity_per_rate(run, variant, output, spacing))
    made = (
        ("cone-ratio", "S per relative parameter distance", f"S / (‖Δθ‖ / ‖θ‖), dt = {spacing:,}", ratio),
        ("cone-speed", "Velocity per learning rate", f"S / (dt · learning rate), dt = {spacing:,}", speed),
    )
    panels = [_panel(a, title, axis, s, all_values([s]), STEP_LABEL) for a, title, axis, s in made if s]
    if not panels:
        return None
    reading = (
        "Kernel motion divided by what drives it: by how far the parameters moved, and by the learning rate. If these "
        "fall too, the kernel settles beyond what smaller steps explain; if main and control coincide, they do not "
        "differ beyond step size."
    )
    legend = legend_of(ratio or speed)
    return Block("cone-relative", "Kernel motion beside parameter motion and learning rate", reading, panels, legend)


def _velocity_per_rate(run: Run, variant: str, output: str, spacing: int) -> dict[int, Spread]:
    table = where(run.table("velocity"), variant=variant, output=output, dt=spacing)
    return {int(key[0]): value for key, value in spreads(table, ("step",), "velocity_per_learning_rate").items()}


def _one_per_variant(run: Run, points: Callable[[str], dict[int, Spread]]) -> list[Series]:
    made = [Series(run.label(v), VARIANT_COLORS.get(v, LIGHT["ink"]), points(v)) for v in run.variants]
    return [series for series in made if series.points]


def _panel(
    anchor: str, title: str, axis: str, series: Sequence[Series], values: Sequence[float], x_label: str
) -> Panel:
    steps = sorted({step for entry in series for step in entry.points})

    def paint(ax: Axes) -> None:
        draw(ax, series)
        step_axis(ax, steps, x_label)
        value_axis(ax, values, axis)

    return draw_panel(anchor, title, f"{axis}, {title}. {describe(series, 't')}", paint)
