"""docs/compatibility.md is what the runs of `make test-compat` have come to, and they have come to what is expected."""

import ast

import pytest

from tests.compat import page
from tests.compat.run import LIBRARIES, RESULTS, Tried, version, words
from tests.compat.servers import PROGRAMS

PATHS = list(page.PATHS)


def test_the_page_is_what_the_runs_have_come_to():
    assert page.rendered() == page.PAGE.read_text(encoding="utf-8"), "`make test-compat` writes the page anew"


@pytest.mark.parametrize("path", PATHS)
def test_each_library_has_run_and_did_what_is_expected(path):
    results = page.results()[path]
    found = [(result["name"], result["how"], result["program"], result["outcome"]) for result in results]
    assert found == [(one["name"], one.get("how", ""), one["program"], one["expect"]) for one in LIBRARIES]


@pytest.mark.parametrize("path", PATHS)
def test_the_versions_are_those_that_are_pinned(path):
    ran = {(one["name"], one["how"]): one["version"] for one in page.results()[path]}
    pinned = {(one["name"], one.get("how", "")): version(one) for one in LIBRARIES if "distribution" in one}
    assert ran | pinned == ran


@pytest.mark.parametrize("path", PATHS)
def test_each_outcome_has_its_proof(path):
    """ssad's count grows where a library works by ssa, and only there; and each has been refused in words."""
    for result in page.results()[path]:
        assert (result["after"] > result["before"]) == (result["outcome"] in ("works", "plain text")), result
        assert result["refused"], result


def test_the_programs_know_nothing_of_ssa():
    for program in PROGRAMS.iterdir():
        imported = [
            name.name
            for node in ast.walk(ast.parse(program.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in node.names
        ]
        assert "ssa" not in imported
    assert {path.stem for path in PROGRAMS.iterdir()} == {library["program"] for library in LIBRARIES}


def test_what_goes_past_says_what_to_do():
    assert [one["name"] for one in LIBRARIES if one["expect"] != "works" and "note" not in one] == []


@pytest.mark.parametrize(
    ("tried", "outcome"),
    [
        (Tried(good=True, after_good=3, bad=False, after_bad=3, words="no"), "works"),
        (Tried(good=True, after_good=2, bad=False, after_bad=2, words="no"), "past"),
        (Tried(good=False, after_good=2, bad=False, after_bad=2, words="no"), "refused"),
        (Tried(good=True, after_good=3, bad=True, after_bad=3, words=""), "plain text"),
        (Tried(good=True, after_good=3, bad=True, after_bad=4, words=""), "loosened"),
        (Tried(good=True, after_good=3, bad=False, after_bad=4, words=""), "loosened"),
    ],
)
def test_an_outcome(tried, outcome):
    assert tried.outcome(before=2) == outcome


def test_the_words_are_the_line_with_the_reason():
    said = (
        "E [HOSTNAME_MISMATCH] leaf OU=Testing cert #a_b-c,O=trustme v1.2.1 at localhost:12345, port=4711\nException\n"
    )
    assert words(said) == "E [HOSTNAME_MISMATCH] leaf CN=.. at localhost:PORT, port=PORT"
    assert words("Traceback\nError: it is so\n  +-----\n") == "Error: it is so"


def test_the_results_are_those_of_the_page():
    assert {path.stem for path in RESULTS.iterdir()} == set(PATHS)
