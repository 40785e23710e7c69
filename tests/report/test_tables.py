from __future__ import annotations

import re

import numpy as np
import pytest

from twophase_fast.report import summary_tables
from twophase_fast.report.limits import limits
from twophase_fast.report.numbers import ascii_number
from twophase_fast.report.tables import ceiling_sheet, fall_sheet, perturbation_sheet, probe_sheets, twin_sheets
from twophase_fast.report.tables.text import as_text
from twophase_fast.storage import Trajectory


def row_of(sheet, *keys):
    return next(row for row in sheet.rows if [cell.word for cell in row[: len(keys)]] == list(keys))


def test_twin_table_holds_every_cell_and_the_control(make_run, make_path):
    main, low = twin_sheets(make_run())
    with Trajectory.open(make_path()) as trajectory:
        twins = trajectory.table("twins")
    main_twins = (twins["variant"] == "main") & (twins["control"] == 0)
    cells = set(zip(twins["spawn_step"][main_twins], twins["horizon"][main_twins], strict=True))
    assert len(main.rows) == len(cells) + 1
    chosen = main_twins & (twins["spawn_step"] == 100) & (twins["horizon"] == 200)
    row = row_of(main, "100", "200")
    assert sorted(row[2].values) == sorted(twins["dissimilarity"][chosen])
    assert sorted(row[5].values) == sorted(twins["barrier"][chosen])
    assert row[2].mean == pytest.approx(twins["dissimilarity"][chosen].mean(), rel=1e-15)
    assert [cell.values for cell in main.rows[-1][2:5]] == [(0.0,)] * 3
    assert low.title == "Twin runs, low learning rate (lr 0.01)"


def test_control_row_shows_a_noise_floor_that_is_not_zero(make_run):
    sheet = twin_sheets(make_run(control_exact=False))[0]
    assert row_of(sheet, "control", "all")[2].values == (1e-9,)


def test_fall_table_has_one_column_per_seed(make_run):
    run = make_run()
    sheet = fall_sheet(run)
    twins = run.table("twins")

    def stored(seed, spawn):
        cell = (twins["variant"] == "main") & (twins["seed"] == seed) & (twins["control"] == 0)
        return twins["dissimilarity"][cell & (twins["spawn_step"] == spawn) & (twins["horizon"] == 200)].item()

    row = row_of(sheet, "main (lr 0.1)", "200")
    assert [cell.mean for cell in row[4:]] == [stored(seed, 0) / stored(seed, 400) for seed in (0, 1, 2)]


def test_ceiling_table_spreads_over_pairs(make_run):
    sheet = ceiling_sheet(make_run())
    assert {len(row[1].values) for row in sheet.rows} == {3}


def test_perturbation_table_reports_requested_and_realised(make_run):
    row = row_of(perturbation_sheet(make_run()), "main (lr 0.1)", "0", "relative_gaussian")
    requested, realised, changed, total, share = row[3:]
    assert set(requested.values) == {9e-4}
    assert len(realised.values) == 3
    assert changed.mean == 6001
    assert share.mean == pytest.approx(6001 / total.mean)


def test_probe_table(make_run):
    run = make_run()
    sheet = probe_sheets(run)[0]
    table = run.table("kernel_distance")
    cell = (
        (table["variant"] == "main") & (table["output"] == "full") & (table["step_a"] == 100) & (table["step_b"] == 150)
    )
    row = row_of(sheet, "150")
    assert sorted(row[1].values) == sorted(table["distance"][cell])
    assert sorted(row[2].values) == pytest.approx(sorted(table["distance"][cell] / 50), rel=1e-15)
    assert row_of(sheet, "0")[1].values == ()
    half_angle = sheet.columns.index("half-angle, full")
    assert row_of(sheet, "500")[half_angle].values
    assert row_of(sheet, "550")[half_angle].values == ()  # the window passes the end of training


def test_summary_prints_tables_and_findings(make_path, make_run):
    text = summary_tables(make_path())
    for wanted in (
        "cnn on fashion-mnist-subset: 600 steps of SGD",
        "Twin runs, main (lr 0.1)",
        "Ceiling",
        "Kernel motion",
    ):
        assert wanted in text
    control = next(line for line in text.splitlines() if line.split()[:1] == ["control"])
    assert control.split() == ["control", "all", "0", "0", "-", "0"]
    main = twin_sheets(make_run())[0]
    assert ascii_number(row_of(main, "400", "200")[2].mean) in text
    assert "Chaos effect (effect seen): " in text
    assert "Loss barrier (no effect seen): No effect seen" in re.sub(r"\s+", " ", text)


def test_summary_of_a_run_without_tables(make_path):
    text = summary_tables(make_path(tables=()))
    assert text.startswith("cnn on fashion-mnist-subset")
    assert "Twin runs" not in text


def test_columns_of_text_tables_line_up(make_run):
    lines = as_text(twin_sheets(make_run())[0]).splitlines()
    assert len({len(line) for line in lines[1:-2]}) == 1
    assert np.char.isnumeric(lines[3].split()[0])


def test_growing_parameters_are_mentioned_among_the_limits(make_run):
    run = make_run()
    assert not [note for note in limits(run) if "parameter norm" in note]
    for trunk in run.trunks:
        trunk.metrics["parameter_norm"][1][-1] *= 3
    assert [note for note in limits(run) if "The parameter norm goes from 9.00 to 34.2" in note]
