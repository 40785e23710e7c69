from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from twophase_fast.report import write_report
from twophase_fast.report.style import LIGHT
from twophase_fast.storage import Trajectory

VOID = {"meta", "br", "hr", "img", "input", "link", "path", "use", "rect", "image", "circle", "line"}


class Document(HTMLParser):
    """Checks nesting and gathers what tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.values: list[float] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.attributes.append((tag, found))
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "data":
            self.values.append(float(found["value"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in {"h2", "h3"}:
            self.headings.append(data.strip())


def headings(text: str) -> list[str]:
    return Document(text).headings


def test_tags_are_nested_and_ids_unique(page):
    document = Document(page)
    assert document.open == []
    assert len(document.ids) == len(set(document.ids))


def test_page_asks_for_nothing_from_outside(page):
    assert not re.search(r"https?:|ftp:|@import|<script|<link|<iframe", page)
    assert all(match.startswith(("data:", "#")) for match in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert all(match.startswith("#") for match in re.findall(r"url\(([^)]*)\)", page))


def test_references_inside_figures_resolve(page):
    ids = set(Document(page).ids)
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) <= ids


def test_sections_of_a_complete_run(page):
    found = headings(page)
    for wanted in (
        "What the data show",
        "Parameter dissimilarity C over spawn step and horizon",
        "Parameter distance over spawn step and horizon",
        "Loss barrier over spawn step and horizon",
        "Disagreement rate over spawn step and horizon",
        "Kernel distance between all probe steps",
        "Kernel drift S(t, t+dt)",
        "Kernel distance to reference steps",
        "Half-angle of the cone over a fixed window of 100 iterations",
        "Kernel motion beside parameter motion and learning rate",
        "Loss and accuracy over steps",
        "Limits",
    ):
        assert wanted in found


def test_every_figure_has_alternative_text_and_reading(page):
    document = Document(page)
    alternatives = [attrs["aria-label"] for _, attrs in document.attributes if attrs.get("role") == "img"]
    assert len(alternatives) == page.count("<svg") > 15
    assert all(len(text) > 40 for text in alternatives)
    assert page.count("How to read this.") == page.count("<figure ")


def test_page_follows_screen_and_scheme(page):
    assert 'name="viewport" content="width=device-width' in page
    assert "@media (prefers-color-scheme: dark)" in page
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "var(--ink)" in drawn
    assert not any(color in drawn for color in LIGHT.values())


def test_tables_carry_the_stored_numbers(page, make_path, small):
    with Trajectory.open(make_path(**small)) as trajectory:
        twins, cone = trajectory.table("twins"), trajectory.table("cone")
    values = np.array(Document(page).values)
    for column in ("dissimilarity", "distance", "relative_distance", "disagreement"):
        cell = (twins["variant"] == "low_lr") & (twins["control"] == 0)  # one seed: the mean is the stored number
        assert np.isin(twins[column][cell], values).all()
    cell = (
        (twins["variant"] == "main") & (twins["control"] == 0) & (twins["spawn_step"] == 50) & (twins["horizon"] == 200)
    )
    assert np.isin([twins["barrier"][cell].min(), twins["barrier"][cell].max()], values).all()
    angles = cone["half_angle_degrees"][cone["variant"] == "low_lr"]
    assert np.isin(angles[np.isfinite(angles)], values).all()


def test_control_row_is_exactly_zero(page):
    row = re.search(r'<tr class="control">.*?</tr>', page, flags=re.DOTALL).group()
    values = [float(value) for value in re.findall(r'<data value="([^"]+)"', row)]
    assert values == [0.0] * 4  # C, distance, relative distance, disagreement


def test_requested_and_realised_perturbation_are_shown(page):
    assert "requested norm" in page
    assert "realised norm" in page
    assert "6,001" in page
    assert "6,074" in page


@pytest.mark.parametrize(
    ("tables", "present", "absent"),
    [
        (("kernel_distance", "cone"), "Kernel drift S(t, t+dt)", "Chaos effect: twin runs"),
        (("twins",), "Chaos effect: twin runs", "Cone effect: motion of the kernel"),
        (("cone",), "Half-angle of the cone over a fixed window of 100 iterations", "Kernel drift S(t, t+dt)"),
        ((), "Loss and accuracy over steps", "What the data show"),
    ],
)
def test_what_was_not_measured_has_no_section(make_path, small, tmp_path, tables, present, absent):
    page = write_report(make_path(**small, tables=tables), tmp_path / "part.html").read_text(encoding="utf-8")
    assert Document(page).open == []
    assert present in headings(page)
    assert absent not in headings(page)


def test_page_without_control_runs_says_so(make_path, small, tmp_path):
    path = make_path(**small, low_lr_seeds=(), tables=("kernel_distance",))
    page = write_report(path, tmp_path / "alone.html").read_text(encoding="utf-8")
    assert "No low-learning-rate control was run" in page
    assert "low learning rate" not in page


def test_tracker_run_gets_a_page(synthetic, tmp_path):
    path = synthetic.write_tracker(tmp_path / "tracker.h5")
    page = write_report(path, tmp_path / "tracker.html").read_text(encoding="utf-8")
    with Trajectory.open(path) as trajectory:
        distances = trajectory.kernel_distances()
    assert "Kernel distance between all probe steps" in headings(page)
    assert "my_loss" in page
    assert np.isin(np.diagonal(distances, 1), Document(page).values).all()


def test_empty_run_gets_a_page(tmp_path):
    with Trajectory.create(tmp_path / "empty.h5"):
        pass
    page = write_report(tmp_path / "empty.h5", tmp_path / "empty.html").read_text(encoding="utf-8")
    assert headings(page) == ["Limits", "What was run"]


def test_open_trajectory_and_path_give_the_same_page(make_path, small, tmp_path):
    path = make_path(**small, tables=("cone",), low_lr_seeds=())
    first = write_report(path, tmp_path / "a.html").read_bytes()
    with Trajectory.open(path) as trajectory:
        assert write_report(trajectory, tmp_path / "b.html").read_bytes() == first


def test_text_from_a_run_cannot_become_markup(make_path, small, tmp_path):
    path = make_path(**small, tables=(), config={"model": "<script>alert(1)</script>"})
    page = write_report(path, tmp_path / "odd.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
