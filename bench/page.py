"""Writes what was measured into docs/performance.md, between the marks of its sections, and the drawings beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import drawings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.measure import Row, Samples

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "performance.md"
_SECTION = re.compile(r"(<!-- bench: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_SAID = ("kernel", "processor", "ssl", "ssa")  # what a section says of the machine


def write(taken: Mapping[str, Sequence[Row]], about: Mapping[str, str]) -> None:
    """Write the sections of the measurements that were taken. Others stay as they are."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_SECTION.sub(lambda found: _section(found, taken, about), text), encoding="utf-8")
    for name, svg in drawings.items():
        (DOCS / name).write_text(svg, encoding="utf-8")


def _section(found: re.Match[str], taken: Mapping[str, Sequence[Row]], about: Mapping[str, str]) -> str:
    if found[2] not in taken:
        return found[0]
    rows = [_line("", "ssa", "the other", "unit", "ratio", "aim", ""), _line(*["---"] * 7)]
    rows += [_row(row) for row in taken[found[2]]]
    machine = ". ".join(f"{name}: {about[name]}" for name in _SAID)
    return f"{found[1]}{''.join(rows)}\n{machine}.\n{found[4]}"


def _row(row: Row) -> str:
    name = f"{row.name} ({row.note})" if row.note else row.name
    ratio = number(row.ratio) if row.ratio else ""
    return _line(name, _median(row.ours), _median(row.theirs), row.unit, ratio, row.aim, verdict(row))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _median(samples: Samples | None) -> str:
    return number(samples.median) if samples else ""


def verdict(row: Row) -> str:
    """A word for a row: "met" or "missed"; empty where it has no aim."""
    return {True: "met", False: "missed", None: ""}[row.met]


def number(value: float) -> str:
    """A number with about three figures."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
