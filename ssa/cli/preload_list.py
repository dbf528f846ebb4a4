"""/etc/ld.so.preload as text: the administrator's lines, and ours. Pure.

glibc's dynamic linker reads it so (elf/rtld.c): `#` begins a comment, and names are parted by white space and colons.
"""

from __future__ import annotations

import re

_MARK = "# ssa coerce:"  # our own lines of comment begin so
_PARTED = re.compile(r"[ \t:]+")


def entries(text: str) -> list[str]:
    """The names of the libraries."""
    code = (line.partition("#")[0] for line in text.split("\n"))
    return [name for line in code for name in _PARTED.split(line) if name]


def noted(text: str) -> dict[str, str]:
    """What our comments note: the SHA-256 of files, by path."""
    words = [line.removeprefix(_MARK).split() for line in text.split("\n") if line.startswith(_MARK)]
    return {path: digest for digest, path in (line for line in words if len(line) == 2)}


def with_ours(text: str, entry: str, digests: dict[str, str]) -> str:
    """The text with our library behind all others, and the digests noted."""
    others = without_ours(text, entry)
    if others and not others.endswith("\n"):
        others += "\n"
    notes = "".join(f"{_MARK} {digest} {path}\n" for path, digest in digests.items())
    return f"{others}{notes}{entry}\n"


def without_ours(text: str, entry: str) -> str:
    """The text without our library and our comments. Other lines stay as they are, to the byte."""
    lines = text.split("\n")
    kept = [_without(line, entry) for line in lines if not line.startswith(_MARK)]
    return "\n".join(line for line in kept if line is not None)


def _without(line: str, entry: str) -> str | None:
    """The line without a name; None where it has nothing else."""
    code, mark, comment = line.partition("#")
    names = _PARTED.split(code)
    if entry not in names:
        return line
    others = " ".join(name for name in names if name and name != entry)
    return f"{others}{' ' if others and mark else ''}{mark}{comment}" if others or mark else None
