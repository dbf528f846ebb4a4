"""Draws curves as SVG, readable in light and in dark: panels side by side, with a linear axis each way. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Curves = dict[str, list[tuple[int, float]]]  # the points of each curve, by its name

_WIDTH, _HEIGHT = 400, 300  # of a panel's plot
_LEFT, _TOP, _GAP, _BELOW = 70, 50, 90, 120
_STYLE = """
svg { background: #ffffff; font-family: sans-serif; }
.ground { fill: #ffffff; }
.title { font-size: 16px; font-weight: bold; fill: #1b2430; }
.label { font-size: 13px; fill: #3a4656; }
.grid { stroke: #d5dbe4; stroke-width: 1; }
.curve { fill: none; stroke-width: 2.5; }
.c0 { stroke: #2f5fb3; } .c1 { stroke: #b06a00; stroke-dasharray: 9 4; } .c2 { stroke: #4a8a57; stroke-dasharray: 2 4; }
.p0 { fill: #2f5fb3; } .p1 { fill: #b06a00; } .p2 { fill: #4a8a57; }
@media (prefers-color-scheme: dark) {
svg { background: #10151c; }
.ground { fill: #10151c; }
.title { fill: #eef2f7; }
.label { fill: #c3ccd8; }
.grid { stroke: #2c3745; }
.c0 { stroke: #85adf2; } .c1 { stroke: #e0a04a; } .c2 { stroke: #6fbf80; }
.p0 { fill: #85adf2; } .p1 { fill: #e0a04a; } .p2 { fill: #6fbf80; }
}
"""


class _Panel(NamedTuple):
    """Where a panel is, and what its axes end at."""

    left: int
    across: float
    up: float

    def x(self, value: float) -> float:
        return round(self.left + value / self.across * _WIDTH, 1)

    def y(self, value: float) -> float:
        return round(_TOP + _HEIGHT - value / self.up * _HEIGHT, 1)


def drawing(panels: dict[str, Curves], across: str, up: str) -> str:
    """The SVG of panels by their titles. All have the same curves, of three at most, and the axes of these names."""
    width, height = _LEFT + len(panels) * (_WIDTH + _GAP), _TOP + _HEIGHT + _BELOW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>{', '.join(panels)}: {up}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}"/>',
    ]
    for at, (title, curves) in enumerate(panels.items()):
        lines += _panel(_LEFT + at * (_WIDTH + _GAP), title, curves, across, up)
    lines += _legend(list(next(iter(panels.values()))))
    return "\n".join([*lines, "</svg>", ""])


def _panel(left: int, title: str, curves: Curves, across: str, up: str) -> Iterator[str]:
    points = [point for curve in curves.values() for point in curve]
    panel = _Panel(left, max(x for x, _ in points), _step(max(y for _, y in points)) * 5)
    yield _text("title", left, _TOP - 26, title, "start")
    yield _text("label", left, _TOP - 8, up, "start")
    yield from _grid(panel)
    yield _text("label", left + _WIDTH // 2, _TOP + _HEIGHT + 40, across, "middle")
    for at, curve in enumerate(curves.values()):
        path = " L".join(f"{panel.x(x)} {panel.y(y)}" for x, y in curve)
        yield f'<path class="curve c{at}" d="M{path}"/>'
        for x, y in curve:
            yield f'<circle class="p{at}" cx="{panel.x(x)}" cy="{panel.y(y)}" r="3"/>'


def _grid(panel: _Panel) -> Iterator[str]:
    right, bottom = panel.left + _WIDTH, _TOP + _HEIGHT
    for part in range(6):
        y, x = panel.up * part / 5, panel.across * part / 5
        yield f'<path class="grid" d="M{panel.left} {panel.y(y)} L{right} {panel.y(y)}"/>'
        yield _text("label", panel.left - 8, panel.y(y) + 4, f"{y:g}", "end")
        yield _text("label", panel.x(x), bottom + 20, f"{x:g}", "middle")


def _step(largest: float) -> float:
    """A round fifth of an axis that takes in the largest value."""
    unit = 1.0
    while unit * 50 < largest:
        unit *= 10
    return next(unit * step for step in (1, 2, 4, 5, 10) if unit * step * 5 >= largest)


def _legend(names: list[str]) -> Iterator[str]:
    y, x = _TOP + _HEIGHT + 80, _LEFT
    for at, name in enumerate(names):
        yield f'<path class="curve c{at}" d="M{x} {y - 4} L{x + 40} {y - 4}"/>'
        yield _text("label", x + 48, y, name, "start")
        x += 90 + 7 * len(name)


def _text(kind: str, x: float, y: float, words: str, anchor: str) -> str:
    escaped = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escaped}</text>'
