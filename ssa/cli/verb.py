"""A verb of the command line: one row of a table, from which the parser and the help are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def no_arguments(_parser: argparse.ArgumentParser) -> None:
    """Add no arguments: for a verb that takes none."""


class Verb(NamedTuple):
    """One verb.

    Attributes:
        summary: one line, for the list of verbs.
        description: a paragraph, for its own --help.
        examples: lines of shell, for its own --help.
        notes: more text for its own --help, printed as it is.
        run: runs the verb, and returns the exit status. It raises OSError, `BadValue` or `Failure`, which `main`
            prints in one line.
        arguments: adds the verb's own to its parser.
        json: True if it takes --json.
        verbs: the verbs below it. Without one of them, `run` is called.
    """

    name: str
    summary: str
    description: str
    examples: str
    run: Callable[[argparse.Namespace], int]
    arguments: Callable[[argparse.ArgumentParser], None] = no_arguments
    json: bool = True
    notes: str = ""
    verbs: tuple[Verb, ...] = ()
