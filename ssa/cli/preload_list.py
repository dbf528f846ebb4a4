"""/etc/ld.so.preload as text: the administrator's lines, and ours. Pure.

glibc's dynamic linker reads it so (elf/rtld.c): `#` begins a comment, and names are parted by white space and colons.
glibc 2.36 takes the words of a second comment for names, so we add none.
"""

from __future__ import annotations

import re

_PARTED = re.compile(r"[ \t:]+")


def entries(text: str) -> list[str]:
    """The names of the libraries."""
    code = (line.partition("#")[0] for line in text.split("\n"))
    return [name for line in code for name in _PARTED.split(line) if name]


def with_ours(text: str, entry: str) -> str:
    """The text with our library, behind all others. It stays as it is where our library is there already."""
    if entry in entries(text):
        return text
    return f"{text}\n{entry}\n" if text and not text.endswith("\n") else f"{text}{entry}\n"


def without_ours(text: str, entry: str) -> str:
    """The text without our library. Other lines stay as they are, to the byte."""
    kept = (_without(line, entry) for line in text.split("\n"))
    return "\n".join(line for line in kept if line is not None)


def _without(line: str, entry: str) -> str | None:
    """The line without a name; None where it has nothing else."""
    code, mark, comment = line.partition("#")
    names = _PARTED.split(code)
    if entry not in names:
        return line
    others = " ".join(name for name in names if name and name != entry)
    return f"{others}{' ' if others and mark else ''}{mark}{comment}" if others or mark else None
