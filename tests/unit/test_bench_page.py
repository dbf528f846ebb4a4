"""What `make bench` writes into docs/performance.md: its sections, and the plot."""

import re
import xml.etree.ElementTree as ET

import pytest

from bench import page, plot
from bench.__main__ import MEASUREMENTS
from bench.measure import Row, Samples, drawings

ABOUT = dict.fromkeys(("kernel", "processor", "ssl", "ssa"), "x")


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A page of two sections, of which the first was measured."""
    monkeypatch.setattr(page, "DOCS", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "performance.md")
    monkeypatch.setitem(drawings, "a.svg", "<svg/>")
    page.PAGE.write_text("# A\n\n<!-- bench: one -->\nold\n<!-- end -->\n<!-- bench: two -->\nstays\n<!-- end -->\n")
    row = Row.compared("a thing", "ms", Samples((1.0,)), Samples((2.0,)), 0.4, "<= 0.4").noted("a note")
    page.write({"one": [row], "elsewhere": []}, ABOUT)
    return page.PAGE.read_text()


def test_a_section_is_written_anew_and_others_stay(written, tmp_path):
    assert "| a thing (a note) | 1.00 | 2.00 | ms | 0.50 | <= 0.4 | missed |\n" in written
    assert "old" not in written
    assert "<!-- bench: two -->\nstays\n<!-- end -->" in written
    assert (tmp_path / "a.svg").read_text() == "<svg/>"


def test_the_sections_of_the_page_are_measurements():
    sections = re.findall(r"<!-- bench: (\S+) -->", page.PAGE.read_text())
    assert sections
    assert set(sections) <= set(MEASUREMENTS)
    for drawing in re.findall(r"\]\((\S+\.svg)\)", page.PAGE.read_text()):
        assert (page.DOCS / drawing).is_file()


def test_a_plot_has_its_points_within_its_axes():
    curves = {"ours": [(1, 3.0), (100, 1234.5)], "theirs & others": [(1, 10.0), (100, 99.0)]}
    svg = plot.drawing({"left": curves, "right": curves}, "at once", "ms")
    root = ET.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    circles = root.findall("{*}circle")
    assert len(circles) == 8
    assert all(0 < float(c.get("cx")) < width and 0 < float(c.get("cy")) < height for c in circles)
    assert "prefers-color-scheme: dark" in svg
    assert "theirs &amp; others" in svg


@pytest.mark.parametrize(("largest", "fifth"), [(0.9, 1), (5, 1), (6, 2), (49, 10), (1234, 400), (20000, 4000)])
def test_an_axis_ends_at_a_round_number(largest, fifth):
    assert plot._step(largest) == fifth
