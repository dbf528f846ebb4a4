"""What verbs print: tables for people, plain lines for pipes, JSON for programs.

Much of what is shown was chosen by a peer, so whatever a terminal might act on is escaped before it gets there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssa import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    r"""The text on one line, with control and formatting characters as ``\x1b`` or ``\u202e``."""
    return errors.printable(text, limit=len(text))


def print_json(value: Any) -> None:
    """For programs: ASCII only, so nothing in it can harm a terminal either."""
    print(json.dumps(value, indent=2))  # noqa: T201 - it is what the command is for


def print_line(text: str) -> None:
    """One line."""
    print(printable(text))  # noqa: T201


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title, whether it is of numbers (aligned to the right), and whether of prose."""

    title: str
    numbers: bool = False
    prose: bool = False


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """A table with a heading. Nothing is ever cut off.

    On a terminal, prose is broken between words to fit; in a pipe, each row is one line, however long. A newline in
    a cell is the caller's own, and is all that stays of control characters.
    """
    cells = [[[printable(line) for line in cell.split("\n")] for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_fitted(columns, cells)
    else:
        _print_plain(columns, [[" ".join(cell) for cell in row] for row in cells])


def _print_plain(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    titles = [column.title for column in columns]
    widths = [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        placed = zip(row, widths, columns, strict=True)
        print("  ".join(c.rjust(w) if k.numbers else c.ljust(w) for c, w, k in placed).rstrip())  # noqa: T201


_WIDEST = 100  # columns of running text: longer lines are hard to read
_PROSE = 20  # columns at least: a narrower terminal breaks the lines itself


def _print_fitted(columns: Sequence[Column], rows: Sequence[Sequence[Sequence[str]]]) -> None:
    from rich.console import Console  # late: slow to load, and of use on a terminal only
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="" if os.environ.get("NO_COLOR") else "bold")
    needed = 2 * (len(columns) - 1)
    for number, column in enumerate(columns):
        table.add_column(
            column.title,
            justify="right" if column.numbers else "left",
            no_wrap=not column.prose,
            overflow="fold",
        )
        longest = max([len(column.title), *(len(line) for row in rows for line in row[number])])
        needed += min(longest, _PROSE) if column.prose else longest
    for row in rows:
        table.add_row(*(Text("\n".join(cell)) for cell in row))  # Text: a peer's "[red]" is no markup
    console = Console(highlight=False)
    console.width = max(console.width, needed)
    console.print(table, soft_wrap=False, crop=False)


def print_entries(entries: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Names, each with paragraphs beside it that are broken between words: for people, on a terminal and in a pipe."""
    indent = max((len(name) for name, _ in entries), default=0) + 2
    room = max(min(shutil.get_terminal_size().columns, _WIDEST), indent + _PROSE)
    for name, paragraphs in entries:
        lead = printable(name).ljust(indent)
        for paragraph in paragraphs:
            for line in textwrap.wrap(printable(paragraph), room - indent, break_long_words=False) or [""]:
                print(f"{lead}{line}".rstrip())  # noqa: T201
                lead = " " * indent


def print_fields(title: str, fields: Iterable[tuple[str, str]]) -> None:
    """A heading, and a line a field below it."""
    shown = list(fields)
    width = max((len(name) for name, _ in shown), default=0)
    print_line(title)
    for name, value in shown:
        print_line(f"  {name:{width}}  {value}".rstrip())


_UNITS = ("B", "K", "M", "G", "T", "P")


def size(count: int | None) -> str:
    """A number of bytes for a person: 1536 is 1.5K."""
    if count is None:
        return "-"
    value, power = float(count), 0
    while value >= 999.5 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.1f}{_UNITS[power]}" if power and value < 9.95 else f"{value:.0f}{_UNITS[power]}"


_AGES = ((86400, "d"), (3600, "h"), (60, "m"))


def age(seconds: float) -> str:
    """A time span for a person, by its largest unit: 7300 is 2h."""
    whole = max(0, int(seconds))
    return next((f"{whole // unit}{letter}" for unit, letter in _AGES if whole >= unit), f"{whole}s")
