"""What can be held of the prose in the code: what a linter is told is reasoned, and a docstring stands by itself."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    path for path in sorted((ROOT / "tools").iterdir()) if path.read_bytes().startswith(b"#!/usr/bin/env python")
]
SOURCES = [*(path for part in ("ssa", "bench", "tests", "clients") for path in (ROOT / part).rglob("*.py")), *SCRIPTS]

# They look so: "noqa: CODE, CODE - the reason", "type: ignore[code] # the reason".
WAIVER = re.compile(r"# ?(noqa|type: ignore)\b")
NOQA = re.compile(r"# noqa: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)* - \S+")
IGNORE = re.compile(r"# type: ignore\[[a-z-]+(,\s*[a-z-]+)*\] +[#-] ?\S+")

# A docstring that begins so is a pointer to another one: its reader has to find that first.
POINTER = re.compile(r"(The same\b|Likewise\b|As (of |for |in |with )?`|As (above|of|for|in|with)\b|Ditto\b)")


def comments(path):
    with tokenize.open(path) as file:
        source = io.StringIO(file.read())
    for token in tokenize.generate_tokens(source.readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def docstrings(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def is_reasoned(comment):
    return all(NOQA.match(comment[at:]) or IGNORE.match(comment[at:]) for at in waivers(comment))


def waivers(comment):
    return [found.start() for found in WAIVER.finditer(comment)]


def named(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_linter_is_told_no_without_its_code_and_a_reason(path):
    assert not [f"{path}:{line}: {text}" for line, text in comments(path) if not is_reasoned(text)]


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_docstring_points_at_another(path):
    assert not [f"{path}:{line}: {text}" for line, text in docstrings(path) if POINTER.match(text)]


@pytest.mark.parametrize(
    ("comment", "reasoned"),
    [
        ("# a comment", True),
        ("# noqa: S603 - fixed arguments", True),
        ("# noqa: PLR0913, FBT001 - as the socket module has it", True),
        ("# type: ignore[misc,arg-type] # five more numbers", True),
        ("# noqa", False),
        ("# noqa: S603", False),
        ("# noqa: S603 -", False),
        ("# type: ignore", False),
        ("# type: ignore[misc]", False),
        ("# type: ignore[misc] # noqa: S603", False),
        ("# type: ignore[misc] # a reason  # noqa: S603 - another", True),
    ],
)
def test_what_a_reason_looks_like(comment, reasoned):
    assert is_reasoned(comment) is reasoned
