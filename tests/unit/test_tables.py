"""The tables of the documentation that are made from the code."""

import re
import subprocess
import sys

import pytest

from tests import tables


@pytest.mark.parametrize("page", tables.TABLES)
def test_the_tables_are_what_the_code_says(page):
    assert sorted(tables.names(page)) == sorted(tables.TABLES[page])
    text = (tables.DOCS / page).read_text(encoding="utf-8")
    assert tables.renewed(page) == text, "`python -m tests.tables` writes the tables anew"


def test_an_attributes_number_is_given_once():
    numbers = [attribute.number for attribute in tables.ATTRIBUTES.values()]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("page", ["architecture.md", "library.md", "glossary.md", "dtls.md"])
def test_the_files_that_a_page_names_are_there(page):
    """Whole paths, as `ssa/errors.py`; and pages that are linked."""
    text = (tables.DOCS / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:ssa|tests|tools|bench)/[\w./-]+)`", text)
    linked = [f"docs/{path}" for path in re.findall(r"\]\(([\w-]+\.(?:md|svg))", text)]
    assert [path for path in named + linked if not (tables.ROOT / path).exists()] == []


@pytest.mark.parametrize("page", ["architecture.md", "library.md"])
def test_the_chapters_that_are_linked_are_there(page):
    text = (tables.DOCS / page).read_text(encoding="utf-8")
    for other, chapter in re.findall(r"\]\(([\w-]+\.md)?#([\w-]+)\)", text):
        heads = re.findall(r"^#+ (.+)$", (tables.DOCS / (other or page)).read_text(encoding="utf-8"), re.MULTILINE)
        anchors = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]
        assert chapter in anchors


def test_the_picture_is_what_its_source_says():
    drawn = subprocess.run([sys.executable, tables.ROOT / "tools" / "draw-architecture", "--check"], check=False)
    assert drawn.returncode == 0, "`tools/draw-architecture` draws it anew"


def test_the_glossary_is_short():
    rows = re.findall(r"^\| (?!word|---)", (tables.DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert 1 <= len(rows) <= 15
