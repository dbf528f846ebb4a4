"""How many lines of a program are about TLS: docs/examples.md has the table. Pure, but for reading the programs.

The programs of examples/ are there in plain text, and with TLS in more than one way. A line is about TLS if it is not
in the one that speaks plain text: so no mark and no judgement is needed. Comments and blank lines do not count.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ssa.cli.programs import PROGRAMS
from tests.tables import ROOT, markdown

EXAMPLES = ROOT / "examples"
_COMMENT = re.compile(r"^\s*(//|/\*.*\*/\s*$|#(?!include|define))")
_TRAILING = re.compile(r"\s*/\*.*\*/\s*$")


class Example(NamedTuple):
    """A program, as files below examples/.

    Attributes:
        other: the one with a TLS library in the program, which `library` names.
    """

    name: str
    language: str
    plain: str
    ssa: str
    other: str
    library: str


def _c(name: str) -> Example:
    return Example(name, "C", f"{name}/plain.c", f"{name}/ssa.c", f"{name}/openssl.c", "OpenSSL")


def _client(language: str, plain: str, ssa: str, other: str, library: str) -> Example:
    return Example("http-client", language, *(f"http-client/{path}" for path in (plain, ssa, other)), library)


TABLE = (
    _c("http-client"),
    _c("http-server"),
    _c("event-server"),
    _c("netcat"),
    _client("Python", "plain.py", "by_ssa.py", "by_ssl.py", "`ssl`"),
    _client("Go", "go/plain/main.go", "go/ssa/main.go", "go/tls/main.go", "`crypto/tls`"),
    _client("PHP", "plain.php", "by_ssa.php", "by_tls.php", "`tls://`"),
)


class Paper(NamedTuple):
    """A row of the paper's table 4: lines that were changed, and lines of a TLS library's that were removed."""

    program: str
    changed: int
    removed: int | None
    today: str
    """The program of `PROGRAMS` that is nearest to it."""


PAPER = (
    Paper("wget", 15, 1020, "wget"),
    Paper("lighttpd", 8, 2063, "lighttpd"),
    Paper("ws-event", 5, None, "python3"),
    Paper("netcat", 5, None, "nc (netcat-openbsd)"),
)


def code(text: str) -> list[str]:
    """The lines that count, without indentation."""
    lines = (_TRAILING.sub("", line).strip() for line in text.split("\n") if not _COMMENT.match(line))
    return [line for line in lines if line]


def added(plain: str, other: str) -> int:
    """How many lines a program has that the one in plain text has not: all but their longest common subsequence."""
    theirs, ours = code(plain), code(other)
    longest = [0] * (len(theirs) + 1)
    for line in ours:
        before = longest[:]
        for at, their_line in enumerate(theirs, 1):
            longest[at] = before[at - 1] + 1 if line == their_line else max(before[at], longest[at - 1])
    return len(ours) - longest[-1]


def _read(path: str) -> str:
    return (EXAMPLES / path).read_text(encoding="utf-8")


def counts(example: Example) -> tuple[int, int, int]:
    """The lines of the program in plain text; those that ssa adds or changes; those that the other library does."""
    plain = _read(example.plain)
    return len(code(plain)), added(plain, _read(example.ssa)), added(plain, _read(example.other))


def effort() -> str:
    """The table of our programs."""
    rows = []
    for example in TABLE:
        lines, ssa, other = counts(example)
        path = Path(example.plain).parent
        rows.append(
            [f"[{example.name}](../examples/{path})", example.language, lines, ssa, f"{other} ({example.library})"]
        )
    return markdown(["program", "language", "lines in plain text", "lines about TLS: ssa", "by a library in it"], rows)


def _unchanged(name: str) -> str:
    ways = [f"{program.role} by `{program.way}`" for program in PROGRAMS if program.name == name]
    return f"{name}: 0 ({', '.join(ways) or '`ssa coerce`'})"


def paper() -> str:
    """The paper's table, beside today's."""
    rows = [[row.program, row.changed, row.removed or "", _unchanged(row.today)] for row in PAPER]
    return markdown(["program", "changed", "removed", "lines changed today"], rows)
