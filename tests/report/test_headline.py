from __future__ import annotations

import struct

import pytest

import twophase_fast.report as report
from twophase_fast._types import StorageError, TwoPhaseError
from twophase_fast.report import headline_figure, write_report
from twophase_fast.report.files import replacing


def png_size(path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", data[16:24])


def test_headline_has_three_panels(make_path, small, tmp_path):
    width, height = png_size(headline_figure(make_path(**small), tmp_path / "new" / "head.png"))
    assert width > 3 * height


def test_headline_leaves_out_what_was_not_measured(make_path, small, tmp_path):
    width, height = png_size(headline_figure(make_path(**small, tables=("twins",)), tmp_path / "head.png"))
    assert width < 1.5 * height


def test_headline_of_nothing_is_refused(make_path, small, tmp_path):
    with pytest.raises(TwoPhaseError, match="nothing to draw"):
        headline_figure(make_path(**small, tables=()), tmp_path / "head.png")
    assert not list(tmp_path.iterdir())


def test_missing_package_is_named(make_path, small, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "jinja2" else object())
    with pytest.raises(TwoPhaseError, match=r"needs jinja2.*twophase_fast\[report\]"):
        report.write_report(make_path(**small), tmp_path / "page.html")


def test_missing_run_leaves_no_page(tmp_path):
    with pytest.raises(StorageError):
        write_report(tmp_path / "none.h5", tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_place_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"), replacing(tmp_path / "file" / "page.html") as temporary:
        temporary.write_text("x")
