"""Tables of the cone effect, from the kernels a trunk has stored."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from twophase_fast.experiments.plan import Cone, TrunkName
from twophase_fast.experiments.session import Session
from twophase_fast.experiments.twins import Row
from twophase_fast.measures import cone_half_angle, kernel_distance, parameter_distance
from twophase_fast.storage import Trajectory

DISTANCE, HALF_ANGLE, VELOCITY = "kernel_distance", "cone", "velocity"


def measure_cone(session: Session, trunk: TrunkName) -> None:
    """Add a trunk's kernel distances, half-angles and velocities, for every output that its kernels give."""
    cone = session.plan.cone
    assert cone is not None
    missing = [
        t for t in (DISTANCE, HALF_ANGLE, VELOCITY) if not session.rows(t, variant=trunk.variant, seed=trunk.seed)
    ]
    if not missing:
        return
    session.progress.describe(f"{trunk}: kernel distances")
    child = session.trajectory.child(str(trunk))
    matrices = {output: _distances(child, output) for output in outputs(cone)}
    for table in missing:
        rows = [row for output, matrix in matrices.items() for row in _MAKERS[table](session, trunk, output, matrix)]
        session.trajectory.append_rows(table, rows)


def outputs(cone: Cone) -> list[str]:
    """Kinds of kernel that distances are given for: a full kernel has its trace in it."""
    return ["full", "trace"] if cone.output == "full" else [cone.output]


def _distances(child: Trajectory, output: str) -> np.ndarray:
    """S[i, j] over the probe steps."""
    if output != "trace" or child.kernel(child.steps[0]).ndim == 2:
        return child.kernel_distances()
    traces = [child.kernel(step).diagonal(dim1=2, dim2=3).sum(-1) for step in child.steps]
    matrix = np.zeros((len(traces), len(traces)))
    for i, j in combinations(range(len(traces)), 2):
        matrix[i, j] = matrix[j, i] = kernel_distance(traces[i], traces[j])
    return matrix


def _identity(trunk: TrunkName, output: str) -> Row:
    return {"variant": trunk.variant, "seed": trunk.seed, "output": output}


def _distance_rows(session: Session, trunk: TrunkName, output: str, matrix: np.ndarray) -> list[Row]:
    assert session.plan.cone is not None
    steps = session.plan.cone.probe_steps
    models = [session.workspace.model(trunk, step) for step in steps] if _fit(session) else None
    rows = []
    for i, j in combinations(range(len(steps)), 2):
        a, b = (models[i], models[j]) if models else [session.workspace.model(trunk, steps[k]) for k in (i, j)]
        row = {"step_a": steps[i], "step_b": steps[j], "distance": float(matrix[i, j])}
        relative = parameter_distance(a, b).relative
        rows.append(_identity(trunk, output) | row | {"relative_parameter_distance": relative})
    return rows


def _fit(session: Session) -> bool:
    """Whether the weights at all probe steps fit in memory together (below about half a GB)."""
    probes = session.plan.probe_steps
    sizes = [f.stat().st_size for f in session.workspace.folder.glob("*/model-*.ckpt")]
    return len(probes) * max(sizes, default=0) < 1 << 29


def _half_angle_rows(session: Session, trunk: TrunkName, output: str, matrix: np.ndarray) -> list[Row]:
    cone = session.plan.cone
    assert cone is not None
    angles = cone_half_angle(matrix, cone.probe_steps, cone.window)
    return [
        _identity(trunk, output) | {"step": step, "window": cone.window, "half_angle_degrees": float(angle)}
        for step, angle in zip(cone.probe_steps, angles)
    ]


def _velocity_rows(session: Session, trunk: TrunkName, output: str, matrix: np.ndarray) -> list[Row]:
    cone = session.plan.cone
    assert cone is not None
    child = session.trajectory.child(str(trunk))
    rates = dict(zip(*(column.tolist() for column in child.metric("learning_rate"))))
    index = {step: i for i, step in enumerate(cone.probe_steps)}
    rows = []
    for dt in cone.differences():
        for step in (s for s in cone.probe_steps if s + dt in index):
            velocity = float(matrix[index[step], index[step + dt]]) / dt
            row = {
                "step": step,
                "dt": dt,
                "velocity": velocity,
                "velocity_per_epoch": velocity * child.attrs["steps_per_epoch"],
                "velocity_per_learning_rate": velocity / rates[step] if rates[step] else math.nan,
            }
            rows.append(_identity(trunk, output) | row)
    return rows


_MAKERS = {DISTANCE: _distance_rows, HALF_ANGLE: _half_angle_rows, VELOCITY: _velocity_rows}
