"""The words of `ssa run`: its own options come first, and all from the program's name on is the program's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAKE_A_VALUE = frozenset({"--tls-to", "--name"})
_EVERY = {"--tls-listen": "--tls-listen=all"}  # argparse would take the program's name for the port


def prepared(words: Sequence[str]) -> list[str]:
    """The words of `ssa`; of `ssa run`: with `--` before the program, whose arguments are not read."""
    verb = next((at for at, word in enumerate(words) if not word.startswith("-")), len(words))
    if list(words[verb : verb + 1]) != ["run"]:
        return list(words)
    before, after = words[: verb + 1], words[verb + 1 :]
    at = _program_at(after)
    program = after[at + 1 :] if list(after[at : at + 1]) == ["--"] else after[at:]
    return [*before, *(_EVERY.get(word, word) for word in after[:at]), *(["--"] if program else []), *program]


def _program_at(words: Sequence[str]) -> int:
    """Where our own options end."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        at += 2 if words[at] in _TAKE_A_VALUE else 1
    return min(at, len(words))
