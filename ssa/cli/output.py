"""Prints what verbs show: tables for people, plain lines for pipes, JSON for programs.

Peers chose much of this text, so characters that a terminal might act on are escaped.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import sys
import textwrap
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

from ssa import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Cells = Sequence[Sequence[Sequence[str]]]  # rows of cells of lines


@functools.lru_cache(maxsize=4096)  # most cells of a long table are there many times
def printable(text: str) -> str:
    r"""The text on one line, with control and formatting characters as ``\x1b`` or ``\u202e``."""
    return text if text.isprintable() else errors.printable(text, limit=len(text))


def print_json(value: Any) -> None:
    """Print a value as JSON, in ASCII, so that it cannot harm a terminal."""
    print(json.dumps(value, indent=2))  # noqa: T201 - printing is the purpose


def print_line(text: str) -> None:
    """Print one line."""
    print(printable(text))  # noqa: T201 - printing is the purpose


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        numbers: align the cells to the right.
        prose: cells may be broken between words.
    """

    title: str
    numbers: bool = False
    prose: bool = False


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with a heading. Nothing is cut off, and no word is broken.

    In a pipe each row is one line, however long. On a terminal prose is broken between words to fit. If the table still
    does not fit, each row is a paragraph of titles and values. Newlines in cells stay, as they are the caller's; other
    control characters are escaped.
    """
    cells = [[[printable(line) for line in cell.split("\n")] for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_lines(columns, [[" ".join(cell) for cell in row] for row in cells])
        return
    width = shutil.get_terminal_size().columns
    widths = _widths(columns, cells, width)
    if widths is None:
        _print_paragraphs(columns, cells, width)
        return
    _print_lines(columns, _wrapped(columns, cells, widths), bold=not os.environ.get("NO_COLOR"))


def _print_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, bold: bool = False) -> None:
    titles = [column.title for column in columns]
    widths = [max(map(_width, cells)) for cells in zip(titles, *rows, strict=True)]
    for number, row in enumerate((titles, *rows)):
        placed = zip(row, widths, columns, strict=True)
        line = _GAP.join(_placed(cell, width, column) for cell, width, column in placed).rstrip()
        print(f"\x1b[1m{line}\x1b[0m" if bold and not number else line)  # noqa: T201 - printing is the purpose


_WIDEST = 100  # columns of running text: longer lines are hard to read
_PROSE = 20  # columns of running text at least: a narrower terminal breaks the lines itself
_GAP = "  "
_NARROW = 12  # columns of prose in a table at least: less is hard to read


def _placed(cell: str, width: int, column: Column) -> str:
    space = " " * (width - _width(cell))
    return space + cell if column.numbers else cell + space


@functools.lru_cache(maxsize=4096)
def _width(text: str) -> int:
    """The columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in {"W", "F"} for char in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def _widths(columns: Sequence[Column], rows: Cells, width: int) -> list[int] | None:
    """The widths of the columns with which the table fits; None if it cannot."""
    wanted = [_longest(column, [row[number] for row in rows]) for number, column in enumerate(columns)]
    least = [
        min(
            want,
            max(_NARROW, len(column.title), _longest_word([row[number] for row in rows])) if column.prose else want,
        )
        for number, (column, want) in enumerate(zip(columns, wanted, strict=True))
    ]
    room = width - len(_GAP) * (len(columns) - 1) - sum(least)
    if room < 0:
        return None
    missing = max(sum(wanted) - sum(least), 1)
    return [a + min(b - a, room * (b - a) // missing) for a, b in zip(least, wanted, strict=True)]


def _longest(column: Column, cells: Iterable[Sequence[str]]) -> int:
    return max([len(column.title), *(_width(line) for cell in cells for line in cell)])


def _longest_word(cells: Iterable[Sequence[str]]) -> int:
    return max((_width(word) for cell in cells for line in cell for word in line.split()), default=0)


def _wrapped(columns: Sequence[Column], rows: Cells, widths: Sequence[int]) -> list[list[str]]:
    """The rows as lines. A row has as many lines as its highest cell."""
    lines: list[list[str]] = []
    for row in rows:
        cells = [
            [part for line in cell for part in (textwrap.wrap(line, width, **_WHOLE_WORDS) or [""])]
            if column.prose
            else list(cell)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        lines += map(list, itertools.zip_longest(*cells, fillvalue=""))
    return lines


_WHOLE_WORDS: Any = {"break_long_words": False, "break_on_hyphens": False}


def _print_paragraphs(columns: Sequence[Column], rows: Cells, width: int) -> None:
    for row in rows:
        shown = zip(columns, row, strict=True)
        fields = [f"{column.title} {' '.join(cell)}" for column, cell in shown if cell != [NOTHING]]
        for line in _paragraph(fields, width):
            print(line)  # noqa: T201 - printing is the purpose


def _paragraph(fields: Iterable[str], width: int) -> list[str]:
    """Fields joined to lines. A field is not broken if a line has room for it; further lines are indented."""
    lines = [""]
    for field in fields:
        joined = f"{lines[-1]}{_GAP}{field}" if lines[-1].strip() else f"{lines[-1]}{field}"
        if _width(joined) <= width or not lines[-1].strip():
            lines[-1] = joined
        else:
            lines.append(f"{_INDENT}{field}")
        if _width(lines[-1]) > width:
            lines[-1:] = textwrap.wrap(lines[-1], width, subsequent_indent=_INDENT, **_WHOLE_WORDS)
    return lines


NOTHING = "-"  # a cell without a value
_INDENT = "    "


def print_entries(entries: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Print names with paragraphs beside them, broken between words, on a terminal and in a pipe."""
    indent = max((len(name) for name, _ in entries), default=0) + 2
    room = max(min(shutil.get_terminal_size().columns, _WIDEST), indent + _PROSE)
    for name, paragraphs in entries:
        lead = printable(name).ljust(indent)
        for paragraph in paragraphs:
            for line in textwrap.wrap(printable(paragraph), room - indent, break_long_words=False) or [""]:
                print(f"{lead}{line}".rstrip())  # noqa: T201 - printing is the purpose
                lead = " " * indent


def print_fields(title: str, fields: Iterable[tuple[str, str]]) -> None:
    """Print a heading, and one line for each field below it."""
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
