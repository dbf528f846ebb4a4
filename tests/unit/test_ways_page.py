"""docs/programs.md has what the runs of `make test-programs` have come to, and that is what is expected."""

import pytest

from tests.ways import page
from tests.ways.programs import EXCEPTIONS, PROGRAMS, WAYS
from tests.ways.run import words

EACH = [(program, way) for program in PROGRAMS for way in program.ways]


@pytest.mark.parametrize("path", page.PATHS)
def test_each_program_has_run_by_each_way(path):
    found = {key: one["outcome"] for key, one in page.results(path).items()}
    assert found == {(program.name, program.serves, way): program.expected(way, path) for program, way in EACH}


@pytest.mark.parametrize("path", page.PATHS)
def test_a_refusal_has_words(path):
    """But of a program that gives up by itself, as the descriptor's number is too high for it."""
    silent = [key for key, one in page.results(path).items() if one["outcome"] == "refused" and not one["words"]]
    assert silent == [("nc (netcat-traditional)", False, "seccomp-tls")] * (path == "relay")


@pytest.mark.parametrize("path", page.PATHS)
def test_a_client_that_works_was_refused_the_wrong_name(path):
    for (name, serves, way), one in page.results(path).items():
        if one["outcome"] == "works" and not serves:
            assert "certificate is for another name" in one["words"], (name, way)


def test_an_exception_is_of_a_program():
    assert set(EXCEPTIONS) <= {(program.name, way) for program, way in EACH}
    assert {way for _, way in EACH} == set(WAYS)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (b"", ""),
        (b"one\n two 4711 \n", "two PORT"),
        (b"ssa: no\nfailed\n", "ssa: no"),
        (b"40B7D0F1A27F0000:error:0A000086\n", "error:0A000086"),
        (b"x: leaf O=trustme #123 is for a", "x: leaf is for a"),
    ],
)
def test_the_line_that_says_why(said, line):
    assert words(said, 4711) == line
