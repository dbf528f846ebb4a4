"""The tables of the documentation that are made from the code.

A page has such a table between two comments, `<!-- table: NAME -->` and `<!-- end -->`. `python -m tests.tables` writes
all of them anew; tests/unit/test_tables.py fails where a page differs from the code.
"""

import ast
import errno
import re
from pathlib import Path

from ssa.cli.programs import PROGRAMS, WAYS
from ssa.errors import REASONS
from ssa.policy.levels import LEVELS
from ssa.policy.schema import SETTINGS
from ssa.protocol.attributes import ATTRIBUTES
from ssa.protocol.messages import FIELDS, KINDS, Reply, Request
from tests.unit.layers import EDGES, LAYERS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_TABLE = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def markdown(heads, rows):
    """A table as Markdown has it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n".replace("|  |", "| |") for line in lines)


def kinds():
    """The kinds of messages."""
    rows = [(kind.number, kind.name, kind.meaning, kind.comes_with, kind.reply) for kind in KINDS.values()]
    return markdown(["kind", "name", "meaning", "comes with", "reply, where it was done"], rows)


def attributes():
    """The attributes, by their numbers."""
    rows = [
        (attribute.number, f"`{attribute.name}`", attribute.form.name, _users(attribute.field), attribute.meaning)
        for attribute in sorted(ATTRIBUTES.values(), key=lambda attribute: attribute.number)
    ]
    return markdown(["type", "name", "form", "in", "meaning"], rows)


def _users(field):
    """Which kinds have an attribute: "options" are the kinds that carry a socket's options."""
    users = [kind for kind in KINDS if field in FIELDS[kind]]
    options = [kind for kind in users if issubclass(kind, Request)]
    shared = len(options) == sum(issubclass(kind, Request) for kind in KINDS)
    names = ["options"] * shared + [KINDS[kind].name for kind in users if not (shared and kind in options)]
    return ", ".join(sorted(names, key=lambda name: name == KINDS[Reply].name))


def reasons():
    """The errors."""
    rows = [
        (f"`{name}`", errno.errorcode[row.errno], row.fault, row.alert or "", row.text) for name, row in REASONS.items()
    ]
    return markdown(["reason", "errno", "whose fault", "alert", "in words"], rows)


def layers():
    """The packages and modules by their layers, the highest first."""
    rows = [
        (len(LAYERS) - row, f"`{name}`", _first_sentence(name))
        for row, entries in enumerate(reversed(LAYERS))
        for name in sorted(entries)
    ]
    return markdown(["row", "package or module", "what it is"], rows)


def edges():
    """The modules that do input and output."""
    return markdown(["module", "input and output"], [(f"`{name}`", words) for name, words in sorted(EDGES.items())])


def settings():
    """The settings of the policy."""
    rows = [(f"`{row.name}`", row.form, _shown(row), row.stricter, row.doc, row.enforced) for row in SETTINGS.values()]
    return markdown(["setting", "type", "default", "stricter", "meaning", "enforced by"], rows)


def levels():
    """The levels of `ssa policy use`."""
    rows = [
        (
            f"`{level.name}`",
            f"{level.texts['min_version']} up",
            ", ".join(level.texts["groups"].split()),
            level.texts["min_rsa_bits"],
            level.source,
        )
        for level in LEVELS.values()
    ]
    return markdown(["level", "versions", "groups", "RSA bits", "source"], rows)


def _shown(row):
    """A setting's default, if it is short."""
    if not row.default:
        return "empty"
    return "see below" if "\n" in row.default else f"`{row.default}`"


def ways():
    """The ways by which `ssa run` coerces programs."""
    return markdown(["way", "preloads", "for"], [(way.name, f"`{way.library}`", way.takes) for way in WAYS.values()])


def programs():
    """The programs that are tested."""
    return markdown(["program", "as", "way", "works", "is refused or different"], PROGRAMS)


def _first_sentence(module):
    """The first line of a module's docstring."""
    path = ROOT / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").partition("\n")[0].rstrip(".")


def effort(which):
    """The tables of docs/examples.md, which count lines of examples/."""
    from tests import effort  # it needs `markdown` of this module

    return getattr(effort, which)()


def by_ways(which):
    """The tables of docs/programs.md that the runs of `make test-programs` have come to."""
    from tests.ways import page  # it needs `ROOT` of this module

    heads, *rows = getattr(page, which)()
    return markdown(heads, rows)


TABLES = {
    "library.md": {"kinds": kinds, "attributes": attributes, "reasons": reasons},
    "architecture.md": {"layers": layers, "edges": edges},
    "policy.md": {"settings": settings, "levels": levels},
    "examples.md": {"effort": lambda: effort("effort"), "paper": lambda: effort("paper")},
    "programs.md": {
        "matrix": lambda: by_ways("matrix"),
        "refusals": lambda: by_ways("refusals"),
        "ways": ways,
        "programs": programs,
    },
}


def renewed(page):
    """The text of a page with its tables as the code has them."""
    makers = TABLES[page]
    text = (DOCS / page).read_text(encoding="utf-8")
    return _TABLE.sub(lambda found: found[1] + makers[found[2]]() + found[4], text)


def names(page):
    """The tables that a page has."""
    return [found[2] for found in _TABLE.finditer((DOCS / page).read_text(encoding="utf-8"))]


if __name__ == "__main__":
    for page in TABLES:
        (DOCS / page).write_text(renewed(page), encoding="utf-8")
